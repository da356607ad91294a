# Everything happens in .venv, which the first call creates and later calls keep up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
HAS_MESSAGES := $(BIN)/python -c 'import dwarf_ros.msg' 2>/dev/null
# What the live node needs, and that with every extra.
NODE_INSTALLED := $(VENV)/node-installed
INSTALLED := $(VENV)/installed
SOURCE ?=
ARCHITECTURES ?=

# .venv stands alone: a sourced ROS 2 or another environment must not get into it.
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH PYTHONHOME PYTHONPATH RMW_IMPLEMENTATION
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.DELETE_ON_ERROR:
.PHONY: docs docs-assets help install test lint demo cuda clean remake

help:
	@echo 'make demo           plays a stereo sequence through the live node; figures and pictures in out/demo'
	@echo '                    SOURCE=FOLDER: your own sequence instead of the synthetic one'
	@echo 'make test           all checks: style, import rules, types, tests'
	@echo 'make lint           the checks without the tests'
	@echo 'make cuda           builds the CUDA correlation kernels; needs nvcc'
	@echo "                    ARCHITECTURES='sm_87': for a GPU other than the one in this machine"
	@echo 'make install        creates or updates $(VENV) with every extra'
	@echo 'make docs           builds the pages into build/docs; make docs-assets: their pictures and tables (RECIPE=recipe.json)'
	@echo 'make clean          removes $(VENV) and everything that was built'
	@echo 'PYTHON=...          the Python for $(VENV): 3.11, 3.12 or 3.13 (default: python3)'

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --ignore test/ros --ignore test/live
	# By themselves: live processes that are kept waiting for a core drop frames.
	$(BIN)/python -m pytest test/ros test/live

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	mkdir -p build
	$(BIN)/python -c 'import configparser; c = configparser.ConfigParser(); c.read("setup.cfg"); e = c["options.extras_require"]; print(c["options"]["install_requires"], *(e[n] for n in e if n not in ("dev", "docs", "ros")))' >build/requirements.txt
	$(BIN)/deptry dwarf_ros launch
	$(BIN)/mypy

demo: $(NODE_INSTALLED)
	$(BIN)/dwarf demo --out out/demo $(if $(SOURCE),'$(SOURCE)')

install: $(INSTALLED)

cuda: $(INSTALLED)
	$(BIN)/python -m dwarf_ros.network.correlation.cuda.build $(ARCHITECTURES)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo 'build/docs/index.html'

docs-assets: $(INSTALLED)
	$(BIN)/python docs/make_assets.py $(RECIPE)

clean:
	rm -rf $(VENV) build install log out dwarf_ros.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# Usable only where it was created (not moved or copied) and while its Python still starts.
USABLE := $(shell grep -qsF ' $(CURDIR)/$(VENV)' $(VENV)/pyvenv.cfg && $(BIN)/python -c 'import pip' >/dev/null 2>&1 && echo yes)
ifneq ($(USABLE),yes)
$(NODE_INSTALLED): remake
endif

# The messages are built against the ROS packages of the first installation, hence the second one.
$(NODE_INSTALLED): setup.cfg setup.py pyproject.toml package.xml $(wildcard msg/*)
ifneq ($(USABLE),yes)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit(f"$(PYTHON) is Python {v[0]}.{v[1]}, expected 3.11 to 3.13: make PYTHON=python3.12 ...")'
	@echo 'creating $(VENV): a download of about 150 MB'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
endif
	$(PIP) install --editable '.[ros]'
	$(PIP) install --group messages
	$(PIP) install --no-build-isolation --no-deps --editable .
	@$(HAS_MESSAGES) || echo 'WARNING: the messages could not be built, so the node will run without its topic `estimate`;' \
		'why: $(BIN)/python -m pip install --verbose --no-build-isolation --no-deps --editable .'
	@touch $@

$(INSTALLED): $(NODE_INSTALLED)
	@echo 'installing every extra: a download of about 1 GB'
	$(PIP) install --editable '.[ros,cpu,jax,onnx,quantize,ray,train,viz,docs,dev]'
	@$(HAS_MESSAGES) || $(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@
