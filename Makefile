# Drills for operators: a real node is brought into trouble, and led out of it by the runbook.
#
#     make drill NAME=saturated_by_one_tenant
#     make drill NAME=saturated_by_one_tenant PAUSE=300    # stays in trouble for so many seconds
#     make drill                                           # lists them

PYTHON ?= .venv/bin/python
NAME ?=
PAUSE ?= 0

.PHONY: drill
drill:
	@PYTHONPATH=tests $(PYTHON) -m system.drills --pause $(PAUSE) $(NAME)
