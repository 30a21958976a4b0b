"""The table of attacks: what an attacker does, the bound that holds, and the test that proves it.

``docs/SECURITY.md`` has every row, as :func:`line` writes it. ``python -m security.attacks`` writes all of them.
"""

from __future__ import annotations

from typing import NamedTuple


class Attack(NamedTuple):
    """``test`` is a path below ``tests/``, and the test's name."""

    name: str
    does: str
    bound: str
    test: str


def _rows(file: str, *rows: tuple[str, str, str, str]) -> tuple[Attack, ...]:
    return tuple(Attack(name, does, bound, f"{file}::test_{test}") for name, does, bound, test in rows)


ATTACKS: tuple[Attack, ...] = (
    *_rows(
        "security/test_guest_memory.py",
        (
            "memory growth",
            "grows and touches memory until refused, many at once",
            "the instance's limit, then -1; all comes back",
            "memory_grows_to_the_limit_of_an_instance",
        ),
        (
            "huge initial memory",
            "declares up to 2^32 pages",
            "refused before compilation",
            "a_huge_memory_at_the_start",
        ),
        ("many memories", "declares 2 to 100,000 memories", "one memory a guest", "many_memories"),
        ("stray segment", "puts data behind the memory's end", "a trap of that invocation", "a_segment_outside_memory"),
        (
            "table growth",
            "grows 100 tables until refused, many at once",
            "100,000 entries each, then -1; all comes back",
            "tables_grow_to_their_limit",
        ),
        (
            "huge initial tables",
            "declares tables of 2^32 entries, or 101 tables",
            "refused before compilation",
            "a_huge_table_at_the_start",
        ),
        (
            "stack bomb",
            "recurses without end: small and big frames, indirect, in start",
            "a trap of that invocation",
            "infinite_recursion",
        ),
        (
            "stack bomb by the host",
            "calls the host at every depth of a recursion",
            "the host's functions keep their own stack",
            "recursion_that_calls_the_host_at_every_depth",
        ),
        (
            "endless start",
            "loops in the start function",
            "the deadline, counted from before instantiation",
            "a_start_function_that_never_ends",
        ),
        ("endless tail calls", "calls itself as a tail for ever", "the deadline", "a_loop_of_tail_calls"),
        (
            "bulk operations",
            "fills all of memory again and again",
            "the deadline, between two of them",
            "bulk_operations_that_take_long",
        ),
    ),
    *_rows(
        "security/test_compile_bombs.py",
        (
            "100,000 functions",
            "deploys a module of 100,000 functions",
            "the compiler's time, in another process",
            "100_000_functions",
        ),
        ("10,000 functions", "deploys a module of 10,000 functions", "compiled within seconds", "10_000_functions"),
        (
            "a million functions",
            "deploys a module of a million functions",
            "the compiler's time and memory, in another process",
            "a_million_functions",
        ),
        ("64 MiB of nops", "deploys a function of 63 MiB", "refused in linear time", "64_mib_of_nops"),
        (
            "longest function",
            "deploys a function just below and above the limit",
            "7,654,321 bytes a function",
            "a_long_function",
        ),
        ("nested blocks", "nests blocks 50,000 deep", "no stack of the node's overflows", "blocks_nested_deep"),
        (
            "deeper blocks",
            "nests blocks a million deep",
            "the compiler's memory, in another process",
            "blocks_nested_a_million_deep",
        ),
        ("wide branch", "gives a br_table millions of targets", "refused", "a_branch_of_a_million_targets"),
        ("many locals", "declares up to 2^32 locals in a few bytes", "50,000 locals a function", "a_million_locals"),
        (
            "too many entries",
            "declares more types, imports, globals, exports, segments, letters than there may be",
            "refused before compilation, within 2 seconds",
            "thousands_of_everything",
        ),
        (
            "most entries",
            "declares as many as there may be",
            "deployed, shown and run like any other",
            "the_most_of_everything",
        ),
        (
            "PTX bombs",
            "loads PTX with deep expressions, long names, huge arrays, many entries, labels, registers",
            "read elsewhere, in linear time or ended",
            "ptx_that_is_dear_to_read",
        ),
        (
            "many large modules",
            "deploys and deletes modules of 40 MiB",
            "compiled code is kept within a number of bytes",
            "many_large_modules",
        ),
        (
            "large lists",
            "lists functions with tens of thousands of exports",
            "a page has a size in bytes",
            "lists_of_functions_with_many_exports",
        ),
    ),
    *_rows(
        "security/test_host_calls.py",
        (
            "storm of small calls",
            "calls clock_time_get and last_error_len millions of times",
            "the deadline; the event loop goes on",
            "storms_of_small_calls",
        ),
        (
            "storm of polls",
            "polls 1,024 subscriptions in a tight loop",
            "1,024 a call; the deadline; the event loop goes on",
            "a_storm_of_polls",
        ),
        (
            "storm of random bytes",
            "fills all of memory with random_get again and again",
            "the deadline; the event loop goes on",
            "a_storm_of_random_bytes",
        ),
        (
            "storm of input",
            "reads a large input again and again",
            "copied in pieces; the event loop goes on",
            "a_storm_of_input",
        ),
        (
            "storm of output",
            "writes small and giant pieces without end",
            "no memory beyond what is kept",
            "storms_of_output",
        ),
        (
            "storm of loads",
            "loads 8 MiB that are no PTX again and again",
            "the deadline; the event loop goes on",
            "a_storm_of_loads",
        ),
        (
            "storm of allocations",
            "takes and frees device memory in a tight loop",
            "pages made when touched; the event loop goes on",
            "storms_of_allocations",
        ),
        (
            "storm of copies",
            "copies to and from device memory in a tight loop",
            "copied without the interpreter lock",
            "storms_of_copies",
        ),
        (
            "storm of unloads",
            "loads and unloads a kernel in a tight loop",
            "what stays counts as the instance's memory",
            "a_storm_of_unloads",
        ),
    ),
    *_rows(
        "security/test_kernels.py",
        (
            "global addresses outside",
            "loads, stores and atomics past the end, past 4 GiB, negative, in windows",
            "a fault of that invocation",
            "global_accesses_outside_guest_memory",
        ),
        (
            "straddling accesses",
            "accesses whose last bytes are outside",
            "a fault, nothing written",
            "accesses_that_straddle_the_end",
        ),
        (
            "walking addresses",
            "walks up, down and in strides of 2 GiB",
            "a fault at the first step outside",
            "addresses_that_a_loop_walks",
        ),
        (
            "shared addresses outside",
            "accesses shared memory past its size, negative, far",
            "a fault of that invocation",
            "shared_addresses_out_of_range",
        ),
        (
            "generic addresses",
            "converts any number with cvta and uses it",
            "its own bytes, or a fault",
            "generic_addresses_made_from_any_number",
        ),
        (
            "windows",
            "searches around its variables for a neighbour's secret",
            "its own variables, or a fault",
            "windows_hold_the_kernels_own_variables_only",
        ),
        (
            "parameters outside",
            "reads behind and before its parameters",
            "refused, or a fault",
            "parameters_beyond_their_end",
        ),
        (
            "local memory of others",
            "steps from its local memory into another thread's",
            "a fault of that invocation",
            "local_memory_of_other_threads",
        ),
        (
            "argv games",
            "gives ranges and lengths that wrap, at 2 and 4 GiB",
            "a code, and no kernel runs",
            "pointers_and_lengths_of_argv",
        ),
        (
            "copy games",
            "gives alloc, free and copies every edge of 64 bits",
            "a code, and nothing is touched",
            "pointers_and_lengths_of_copies",
        ),
        (
            "hoard of device memory",
            "allocates until refused, many at once",
            "4,096 pieces and the instance's limit; all comes back",
            "a_hoard_of_device_memory",
        ),
        (
            "places in device memory",
            "gives freed, foreign and wrapping handles, offsets outside",
            "a code, and no kernel runs",
            "places_in_device_memory",
        ),
        (
            "device memory outside",
            "leaves an allocation in every direction, searches around it",
            "a fault of that invocation; nothing of others is there",
            "device_memory_around_an_allocation",
        ),
        (
            "endless kernels",
            "loops, waits at a barrier that is missed, waits for a word",
            "the deadline",
            "kernels_that_never_end",
        ),
        (
            "flood of printing",
            "prints from every thread without end",
            "counts as output; the rest is dropped",
            "a_flood_of_printing",
        ),
    ),
    *_rows(
        "security/test_floods.py",
        (
            "fan-out",
            "fires 200 endless invocations at once",
            "workers, queue, then refused; deadlines hold",
            "fan_out_of_endless_guests",
        ),
        (
            "fan-out of tenants",
            "names a new tenant in each request",
            "no memory, label or thread for a name",
            "fan_out_under_many_tenants_names",
        ),
        (
            "flood of output",
            "writes gigabytes to stdout",
            "TENSOR_WASM_OUTPUT_BYTES; nothing in the log",
            "guests_that_write_gigabytes",
        ),
        (
            "forged log lines",
            "puts control characters into every text it may choose",
            "escaped in answers, absent from the log",
            "text_that_would_forge_log_lines",
        ),
        ("flood of refusals", "sends what is refused", "counted, not logged", "refusals_write_no_log"),
    ),
    *_rows(
        "security/test_slow_clients.py",
        ("slow heads", "trickles heads on 100 connections", "10 seconds a head; no thread", "heads_that_trickle"),
        ("slow bodies", "trickles bodies on 100 connections", "no worker is held", "bodies_that_trickle"),
        (
            "silent connections",
            "opens 100 connections and says nothing",
            "nobody waits",
            "connections_that_say_nothing",
        ),
        (
            "clients that go away",
            "starts endless invocations and resets the connection",
            "ended long before their deadline",
            "requests_whose_clients_go_away",
        ),
        (
            "endless pipeline",
            "sends requests without reading answers",
            "few requests wait in the node",
            "a_pipeline_without_end",
        ),
        (
            "times of slow clients",
            "sends half a head, half a body",
            "closed when its time is over",
            "a_trickle_is_given_up",
        ),
        (
            "unread answers",
            "never reads a large answer",
            "dropped after the time of an idle connection",
            "answers_that_are_never_read",
        ),
    ),
    *_rows(
        "security/test_requests.py",
        (
            "path tricks",
            "sends dot segments, encoded slashes, NULs, overlong UTF-8, other case",
            "404: paths are compared, never walked",
            "paths_that_lead_elsewhere",
        ),
        (
            "odd targets",
            "sends absolute and authority forms",
            "the path on this node, or refused; Host decides",
            "absolute_and_odd_targets",
        ),
        ("overlong paths", "sends paths of 60 KB and 200 KB", "a head has 64 KiB", "overlong_paths"),
        ("many headers", "sends 6,000 and 100,000 headers", "a head has 64 KiB", "a_great_many_headers"),
        (
            "smuggling",
            "gives a body two lengths, or odd ones",
            "refused with the connection: nothing follows",
            "smuggling_by_two_lengths",
        ),
        (
            "chunk tricks",
            "sends endless chunk extensions, trailers and sizes",
            "64 KiB, then cut",
            "chunks_with_extensions_and_trailers",
        ),
        (
            "trailers for headers",
            "sends a token in a trailer",
            "a trailer decides nothing",
            "a_trailer_does_not_act_for_a_header",
        ),
        (
            "broken headers",
            "sends NULs, bare CRs, folded lines, broken names",
            "refused, or a part of its own value",
            "headers_that_are_none",
        ),
        (
            "case of the tenant's header",
            "writes it in other letters",
            "found all the same; the scope holds",
            "a_header_of_another_case",
        ),
        (
            "odd tenants",
            "writes tenants with signs, blanks, other digits, 2^64",
            "invalid_tenant",
            "a_tenant_in_odd_digits",
        ),
        ("double headers", "sends two tokens, two tenants", "refused", "headers_that_come_twice"),
        (
            "forged request ids",
            "sends request ids with other characters",
            "only plain ones come back",
            "request_ids_that_would_forge_an_answer",
        ),
    ),
    *_rows(
        "security/test_json_bombs.py",
        ("slow numbers", "sends numbers that are slow to read", "counted before they are read", "slow_numbers"),
        ("many arguments", "sends millions of arguments", "no object for each", "millions_of_arguments"),
        ("long numbers", "sends numbers of millions of digits", "linear time", "numbers_of_millions_of_digits"),
        ("deep nesting", "nests arrays and objects millions deep", "invalid_json; no stack overflows", "deep_nesting"),
        ("many keys", "sends an object of millions of keys", "the first unknown one ends it", "many_keys"),
        ("duplicate keys", "repeats a key a million times", "linear time; the last counts", "duplicate_keys"),
        ("giant strings", "names an export of 16 MiB", "a short error", "a_giant_string_is_not_given_back"),
        (
            "giant names",
            "deploys exports with giant names",
            "a short error",
            "giant_names_of_exports_are_not_given_back",
        ),
        (
            "broken text",
            "sends overlong forms, lone surrogates, broken UTF-8",
            "invalid_json",
            "text_that_is_no_unicode",
        ),
        (
            "memory of refusals",
            "sends large bodies that are refused",
            "freed when answered",
            "memory_of_refused_bodies_comes_back_at_once",
        ),
        ("memory of inputs", "sends large inputs", "freed when answered", "memory_of_inputs_comes_back_at_once"),
    ),
    *_rows(
        "security/test_streams.py",
        (
            "ending a stream's guest",
            "writes to readers that do not read, and is ended",
            "an order is seen while it waits; memory and permits are back at once",
            "ending_a_guest_that_writes_to_a_reader_that_does_not_read",
        ),
        (
            "flood of chunks",
            "emits large and tiny chunks without end",
            "32 chunks wait, then the guest does, until its deadline",
            "a_guest_that_floods_chunks",
        ),
        (
            "empty chunks",
            "emits chunks of no bytes, some or without end",
            "they end no stream; the deadline ends the guest",
            "empty_chunks",
        ),
        (
            "forged events",
            "emits text that looks like events",
            "base64 in its own event",
            "chunks_that_would_forge_events",
        ),
        (
            "deaf to -3",
            "goes on to emit when its client is gone",
            "ended a second later, long before its deadline",
            "a_guest_that_ignores_that_its_client_is_gone",
        ),
        (
            "readers that stop",
            "asks for streams and reads nothing",
            "cut after 30 seconds, and the guest with it",
            "readers_that_stop_reading",
        ),
    ),
    *_rows(
        "security/test_kept_instances.py",
        (
            "hoard of kept instances",
            "makes instances and fills them until refused",
            "the tenant's quotas, all the time; all comes back",
            "a_hoard_of_instances_meets_the_quota",
        ),
        (
            "hoard without a quota",
            "makes instances where no quota is set",
            "1024 of a tenant, 2048 of all: calls find a place",
            "a_hoard_of_instances_without_a_quota",
        ),
        (
            "storm on a busy instance",
            "calls one that answers a call, hundreds of times",
            "told busy at once: no thread, no place in the queue",
            "a_storm_of_calls_to_a_busy_instance",
        ),
        (
            "instances left behind",
            "makes instances and never calls them, or at the last moment",
            "ended when idle for too long",
            "instances_that_nobody_calls",
        ),
        (
            "pages of restored instances",
            "looks for what snapshots and warm starts of others showed",
            "zeros",
            "pages_of_instances_that_were_restored",
        ),
        (
            "endless warm starts",
            "deploys functions whose first export never ends",
            "the deadline; others deploy meanwhile",
            "warm_starts_that_never_end",
        ),
        (
            "growing warm starts",
            "deploys functions whose first export fills memory",
            "an instance's memory; states count as stored",
            "warm_starts_that_grow",
        ),
    ),
    *_rows(
        "security/test_snapshots.py",
        (
            "inflating snapshot files",
            "uploads KiBs that become GiBs, signed by a trusted key or not",
            "what was announced, which fits an instance; one block beyond",
            "files_that_inflate",
        ),
        (
            "wide windows",
            "uploads files that ask for gigabytes to inflate them",
            "8 MiB of window",
            "windows_that_are_too_wide",
        ),
        (
            "lying headers",
            "uploads headers of false sizes, of deep JSON, of states that cannot be",
            "8 MiB, and only the fields of a header",
            "headers_that_lie",
        ),
        (
            "ids of snapshots",
            "uploads and asks under ids that are paths",
            "a UUID in lower case, whole",
            "ids_that_lead_elsewhere",
        ),
        (
            "endless uploads",
            "begins 60 uploads and sends no more",
            "4 files of a tenant on their way; nothing stays",
            "uploads_that_never_end",
        ),
        ("trickling uploads", "pauses within an upload", "10 seconds, then 408", "uploads_that_trickle"),
        (
            "unread downloads",
            "asks for files and reads nothing",
            "4 files of a tenant on their way, cut after 30 seconds",
            "downloads_that_nobody_reads",
        ),
        (
            "storm of captures",
            "captures large instances again and again beside another's deploys",
            "written one at a time, in the tenant's own turns",
            "a_storm_of_captures",
        ),
        (
            "large states",
            "captures tables of tens of thousands of changed entries, lists them again and again",
            "a state counts as stored, and is on the disk only",
            "states_that_are_larger_than_memories",
        ),
        (
            "hoard of snapshots",
            "captures without end, deletes the functions",
            "1000 of a tenant; each counts with its module",
            "a_hoard_of_snapshots",
        ),
    ),
    *_rows(
        "security/test_jobs.py",
        (
            "flood of jobs",
            "submits jobs that never end until refused",
            "10,000 wait; half of the threads; others' jobs go on",
            "a_flood_of_jobs",
        ),
        (
            "large jobs",
            "submits large inputs, has large results",
            "1 GiB of a tenant's jobs; oldest results go first, as few as must",
            "jobs_with_large_inputs",
        ),
        (
            "flood of keys",
            "sends a new idempotency key with each request",
            "a million a tenant and day; old ones hold",
            "a_flood_of_keys",
        ),
        ("keys of others", "sends keys that another tenant used", "a key is the tenant's own", "keys_of_others"),
        (
            "jobs beside calls",
            "submits hundreds of jobs beside another's calls",
            "calls find a thread",
            "jobs_beside_another_tenants_calls",
        ),
    ),
    *_rows(
        "security/test_tenants.py",
        (
            "id guessing",
            "uses another tenant's ids on every route",
            "the answer that a random id gets, to the byte",
            "ids_of_others_are_ids_of_nothing",
        ),
        (
            "things of others",
            "uses another tenant's instances, snapshots, jobs, models on every route",
            "the answer of what never was, to the byte",
            "things_of_others_are_things_of_nobody",
        ),
        (
            "lists of things",
            "lists instances, snapshots, jobs, models, and asks /admin for models",
            "its own only; 403",
            "lists_of_things_show_nothing_of_others",
        ),
        (
            "id timing",
            "times another tenant's ids against random ones",
            "medians agree",
            "ids_of_others_take_no_other_time",
        ),
        (
            "cursors of others",
            "lists with another tenant's cursor, and with nonsense",
            "its own functions, or refused",
            "a_list_shows_nothing_of_others",
        ),
        (
            "administration",
            "calls every route of /admin with a tenant's token",
            "403, or 401 without one",
            "routes_of_administration",
        ),
        (
            "leftovers",
            "looks for what the tenant before left in memory of every kind",
            "zeros",
            "leftovers_of_the_tenant_before",
        ),
        (
            "kernels and handles of others",
            "uses kernel ids and handles that another instance holds",
            "unknown in this one",
            "ids_of_kernels_and_handles_of_others",
        ),
        (
            "output of others",
            "runs beside another tenant on the same threads",
            "output comes back to its caller only",
            "output_and_errors_of_others",
        ),
        (
            "token comparison",
            "guesses tokens by their parts",
            "hashed whole, then compared in constant time",
            "tokens_are_compared_by_hash_only",
        ),
        (
            "token timing",
            "times tokens that share all but a letter with a real one",
            "no difference",
            "a_token_that_is_nearly_right_takes_no_other_time",
        ),
        ("flood of tokens", "sends hundreds of wrong tokens", "401 each; nothing stays", "a_flood_of_wrong_tokens"),
    ),
)


def line(attack: Attack) -> str:
    """The row of ``docs/SECURITY.md``."""
    return f"| {attack.name} | {attack.does} | {attack.bound} | `tests/{attack.test}` |"


if __name__ == "__main__":
    print("\n".join(map(line, ATTACKS)))
