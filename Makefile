# A GPU, tested and measured; without one it says so. OUTPUT gets the details.
#
#     make gpu
#     make gpu GPU=1 OUTPUT=/tmp/gpu BUDGET=240            # another GPU, all of it in so many seconds
#
# Drills for operators: a real node is brought into trouble, and led out of it by the runbook.
#
#     make drill NAME=saturated_by_one_tenant
#     make drill NAME=saturated_by_one_tenant PAUSE=300    # stays in trouble for so many seconds
#     make drill                                           # lists them

PYTHON ?= .venv/bin/python
NAME ?=
PAUSE ?= 0
GPU ?= 0
OUTPUT ?= gpu-report
BUDGET ?= 0

.PHONY: drill
drill:
	@PYTHONPATH=tests $(PYTHON) -m system.drills --pause $(PAUSE) $(NAME)

.PHONY: gpu
gpu:
	@$(PYTHON) benchmarks/gpu/measure.py --gpu $(GPU) --output $(OUTPUT) --budget $(BUDGET)
