from __future__ import annotations

import json
import time

DRAINED = {"drained": True, "ended": 0, "waited_s": 1.25}


def test_a_drain_says_that_all_finished(remote, node):
    node.answer("POST /admin/drain", DRAINED)
    result = remote("admin", "drain")
    assert (result.code, result.out) == (0, "drained in 1.2s; all work finished\n")
    assert json.loads(node.asked[0].body) == {}
    assert remote("admin", "drain", "--json").json == DRAINED


def test_a_drain_that_had_to_end_work_is_a_failure_that_says_how_much(remote, node):
    answer = {"drained": False, "ended": 3, "waited_s": 5.04}
    node.answer("POST /admin/drain", answer)
    result = remote("admin", "drain", "--timeout", "5")
    assert (result.code, result.out) == (1, "")
    assert "after 5.0s work was still running and was ended (instances: 3)" in result.err
    assert json.loads(node.asked[0].body) == {"timeout_s": 5.0}
    result = remote("admin", "drain", "--json")
    assert (result.code, result.json) == (1, answer)
    assert "--timeout" in result.err


def test_a_drain_is_waited_for_as_long_as_it_may_take(remote, node, monkeypatch):
    monkeypatch.setattr("tensor_wasm.cli.client.ANSWER_TIMEOUT_S", 0.05)

    class Late(list):
        def pop(self, index=-1):
            raise AssertionError

        def __getitem__(self, index):
            time.sleep(0.2)
            return super().__getitem__(index)

    node.answers["POST /admin/drain"] = Late([(200, DRAINED)])
    assert remote("admin", "drain", "--timeout", "1").code == 0
    assert remote("admin", "drain").code == 0
    assert remote("admin", "drain", "--timeout", "0").code == 124
