from __future__ import annotations

import logging
import pickle
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_scissor.config import (
    METHODS,
    Config,
    GenerationConfig,
    ModelConfig,
    ScissorConfig,
    Section,
    VideoConfig,
    to_dict,
)
from llava_scissor.errors import ConfigError
from tests.config.sections import compression

SECTIONS = [ModelConfig, VideoConfig, ScissorConfig, GenerationConfig]


def test_the_defaults_are_the_demo() -> None:
    assert to_dict(Config()) == {
        "model": {
            "path": "demo",
            "device": "auto",
            "dtype": "auto",
            "attn_implementation": "auto",
            "device_map": None,
            "quantization": None,
        },
        "video": {"num_frames": None, "decoder": "pyav", "resize": "pil"},
        "compression": {
            "preset": "paper",
            "tau": None,
            "retention_ratio": None,
            "temporal_window": None,
            "positions": "consecutive",
            "epsilon": None,
            "sample_size": None,
            "seed": 0,
            "block_size": None,
            "method": "scissor",
            "images": False,
        },
        "generation": {
            "max_new_tokens": 256,
            "do_sample": False,
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "repetition_penalty": None,
            "seed": 0,
            "stop": [],
        },
    }


@pytest.mark.parametrize(
    ("values", "tau"),
    [
        ({}, 0.9),
        ({"tau": 0.5}, 0.5),
        ({"tau": 0}, 0.0),
        ({"retention_ratio": 0.1}, None),
        ({"tau": 0.8, "retention_ratio": 0.1}, 0.8),
        ({"epsilon": 0.05}, 0.9),
    ],
)
def test_effective_tau(values: dict, tau: float | None) -> None:
    assert ScissorConfig(**values).effective_tau == tau


@pytest.mark.parametrize("section", [*SECTIONS, ScissorConfig, Config])
def test_a_section_is_a_value(section: type[Section]) -> None:
    config = section()
    assert config == section()
    assert hash(config) == hash(section())
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_has_a_description(section: type[Section]) -> None:
    assert all(field.description for field in section.model_fields.values())


def test_an_integer_is_a_number() -> None:
    config = ScissorConfig(tau=1, retention_ratio=1)
    assert config == ScissorConfig(tau=1.0, retention_ratio=1.0)
    assert isinstance(config.tau, float)


@pytest.mark.parametrize(
    "values",
    [{"tau": -1}, {"tau": 1}, {"retention_ratio": 1}, {"retention_ratio": 1e-9}, {"epsilon": 1.0}],
)
def test_the_ends_of_the_ranges_are_allowed(values: dict) -> None:
    assert ScissorConfig(**values).model_fields_set == set(values)


TAU = "expected a number from -1 to 1, or null"
RATIO = "expected a number above 0 and at most 1, or null"
POSITIVE = "expected a number above 0, or null"


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (ScissorConfig, {"tau": 1.7}, f"tau: got 1.7, {TAU}"),
        (ScissorConfig, {"tau": -1.01}, f"tau: got -1.01, {TAU}"),
        (ScissorConfig, {"tau": float("nan")}, f"tau: got nan, {TAU}"),
        (ScissorConfig, {"tau": float("inf")}, f"tau: got inf, {TAU}"),
        (ScissorConfig, {"tau": True}, f"tau: got true, {TAU}"),
        (ScissorConfig, {"tau": "0.9"}, f"tau: got the text '0.9', {TAU}"),
        (ScissorConfig, {"tau": [0.9]}, f"tau: got a list, {TAU}"),
        (ScissorConfig, {"tau": 0.9j}, f"tau: got a complex, {TAU}"),
        (ScissorConfig, {"retention_ratio": 0}, f"retention_ratio: got 0, {RATIO}"),
        (ScissorConfig, {"retention_ratio": 10}, f"retention_ratio: got 10, {RATIO}"),
        (ScissorConfig, {"epsilon": 0.0}, f"epsilon: got 0.0, {RATIO}"),
        (ScissorConfig, {"sample_size": 0}, "sample_size: got 0, expected an integer of at least 1, or null"),
        (ScissorConfig, {"sample_size": 10.0}, "sample_size: got 10.0, expected an integer of at least 1"),
        (ScissorConfig, {"seed": -1}, "seed: got -1, expected an integer from 0 to 9223372036854775807"),
        (ScissorConfig, {"seed": None}, "seed: got null, expected an integer from 0"),
        (ScissorConfig, {"seed": True}, "seed: got true, expected an integer from 0"),
        (
            Config,
            {"compression": {"method": "Scisors"}},
            f"compression.method: got the text 'Scisors', expected one of {', '.join(METHODS)}; "
            "did you mean 'scissor'?",
        ),
        (
            Config,
            {"compression": {"method": None}},
            "compression.method: got null, expected one of scissor, none, random",
        ),
        (ModelConfig, {"path": ""}, "path: got the text '', expected text that is not empty"),
        (ModelConfig, {"path": 7}, "path: got 7, expected text that is not empty"),
        (
            ModelConfig,
            {"device": "cude"},
            "device: got the text 'cude', expected text such as auto, cpu, cuda, cuda:0, mps; "
            "did you mean 'cuda'?",
        ),
        (ModelConfig, {"device": "cuda:0\n"}, r"device: got the text 'cuda:0\n', expected text such as auto"),
        (
            ModelConfig,
            {"dtype": "fp16"},
            "dtype: got the text 'fp16', expected one of auto, float32, bfloat16, float16; "
            "did you mean 'float16'?",
        ),
        (
            ModelConfig,
            {"attn_implementation": "flash"},
            "attn_implementation: got the text 'flash', expected one of auto, sdpa, eager, "
            "flash_attention_2; did you mean 'flash_attention_2'?",
        ),
        (VideoConfig, {"num_frames": 0}, "num_frames: got 0, expected an integer from 1 to 4096, or null"),
        (
            VideoConfig,
            {"num_frames": 4097},
            "num_frames: got 4097, expected an integer from 1 to 4096, or null",
        ),
        (
            VideoConfig,
            {"num_frames": "8"},
            "num_frames: got the text '8', expected an integer from 1 to 4096",
        ),
        (
            VideoConfig,
            {"decoder": "av"},
            "decoder: got the text 'av', expected one of pyav, decord; did you mean 'pyav'?",
        ),
        (VideoConfig, {"resize": "PIL2"}, "expected one of torch, pil; did you mean 'pil'?"),
        (
            GenerationConfig,
            {"max_new_tokens": 0},
            "max_new_tokens: got 0, expected an integer from 1 to 32768",
        ),
        (GenerationConfig, {"do_sample": "false"}, "do_sample: got the text 'false', expected true or false"),
        (GenerationConfig, {"do_sample": 0}, "do_sample: got 0, expected true or false"),
        (GenerationConfig, {"temperature": 0}, f"temperature: got 0, {POSITIVE}"),
        (GenerationConfig, {"top_p": 1.1}, f"top_p: got 1.1, {RATIO}"),
        (GenerationConfig, {"top_k": -1}, "top_k: got -1, expected an integer of at least 0, or null"),
        (GenerationConfig, {"repetition_penalty": 0}, f"repetition_penalty: got 0, {POSITIVE}"),
        (GenerationConfig, {"seed": 0.0}, "seed: got 0.0, expected an integer from 0"),
        (
            ScissorConfig,
            {"taux": 1},
            "taux: unknown key, did you mean 'tau'? The keys are images, method, preset, tau, retention_ratio",
        ),
        (
            ScissorConfig,
            {"qqqq": 1},
            "qqqq: unknown key. The keys are images, method, preset, tau, retention_ratio",
        ),
        (
            Config,
            {"modle": {}},
            "modle: unknown section, did you mean 'model'? The sections are model, video",
        ),
        (
            Config,
            {"tau": 0.5},
            "tau: unknown section, did you mean 'compression.tau'? The sections are model",
        ),
        (
            Config,
            {"video": {"max_new_tokens": 9}},
            "video.max_new_tokens: unknown key, did you mean 'generation.max_new_tokens'? The keys of",
        ),
        (Config, {"compression": {"tau": 3}}, f"compression.tau: got 3, {TAU}"),
        (
            Config,
            {"compression": {3: 4}},
            "compression.3: unknown key. The keys of compression are images, method, preset, tau",
        ),
        (
            Config,
            {"compression": 0.5},
            "compression: got 0.5, expected a mapping with the key method and the keys of that method",
        ),
        (Config, {"video": ScissorConfig()}, "video: got a ScissorConfig, expected a mapping"),
        (Config, {"compression": VideoConfig()}, "compression: got a VideoConfig, expected a mapping"),
        (Config, {"compression": None}, "compression: got null, expected a mapping"),
    ],
)
def test_an_impossible_value_is_explained(section: type[Section], values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        section(**values)


def test_epsilon_and_sample_size_exclude_each_other() -> None:
    message = r"^epsilon and sample_size: got 0.05 and 100, expected only one of the two"
    with pytest.raises(ConfigError, match=message):
        ScissorConfig(epsilon=0.05, sample_size=100)


@pytest.mark.parametrize("method", ["random", "uniform", "pooling", "tome"])
def test_a_baseline_needs_a_ratio(method: str) -> None:
    message = (
        f"^compression.retention_ratio: missing, which method '{method}' needs: expected a number above 0"
    )
    with pytest.raises(ConfigError, match=message):
        compression(method=method, tau=0.9)
    assert compression(method=method, retention_ratio=0.1).retention_ratio == 0.1


def test_all_problems_are_in_one_message() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(model={"dtype": "half"}, compression={"tau": 2, "tua": 0.5}, generaton={})
    keys = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert keys == ["model.dtype", "compression.tau", "compression.tua", "generaton"]


def test_a_message_stays_short_and_printable() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(**{"\x1b[31m" + "k" * 10_000: 1, "model": {"path": "", "dtype": "x" * 10_000}})
    assert "\x1b" not in str(caught.value)
    assert all(len(line) < 300 for line in str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("build", "warnings"),
    [
        (lambda: compression(), []),
        (lambda: compression(tau=0.8, retention_ratio=0.1, epsilon=0.05, seed=3), []),
        (lambda: compression(method="random", retention_ratio=0.1, seed=3), []),
        (
            lambda: compression(method="random", retention_ratio=0.1, tau=0.8, epsilon=0.1),
            [
                f"compression.{key} has no effect with compression.method 'random', only with scissor"
                for key in ("tau", "epsilon")
            ],
        ),
        (
            lambda: compression(method="pooling", retention_ratio=0.1, seed=1),
            ["compression.seed has no effect with compression.method 'pooling', only with scissor, random"],
        ),
        (
            lambda: compression(method="none", retention_ratio=0.1),
            [
                "compression.retention_ratio has no effect with compression.method 'none', only with "
                + ", ".join(name for name in METHODS if name != "none")
            ],
        ),
        (
            lambda: compression(seed=3),
            ["compression.seed has no effect without epsilon or sample_size"],
        ),
        (lambda: GenerationConfig(do_sample=True, temperature=0.7, top_k=0, seed=1), []),
        (lambda: GenerationConfig(repetition_penalty=1.05), []),
        (
            lambda: GenerationConfig(temperature=0.7, top_p=0.8, top_k=20, seed=1),
            [
                f"generation.{key} has no effect with generation.do_sample false"
                for key in ("temperature", "top_p", "top_k", "seed")
            ],
        ),
    ],
)
def test_an_option_without_effect_warns(build, warnings: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="llava_scissor"):
        build()
    assert [record.getMessage() for record in caplog.records] == warnings


@given(
    tau=st.one_of(st.none(), st.floats()),
    retention_ratio=st.one_of(st.none(), st.floats()),
    epsilon=st.one_of(st.none(), st.floats()),
)
def test_a_config_is_in_range_or_an_error(tau, retention_ratio, epsilon) -> None:
    is_valid = (tau is None or -1 <= tau <= 1) and all(
        share is None or 0 < share <= 1 for share in (retention_ratio, epsilon)
    )
    try:
        config = ScissorConfig(tau=tau, retention_ratio=retention_ratio, epsilon=epsilon)
    except ConfigError:
        assert not is_valid
    else:
        assert is_valid
        assert (config.tau, config.retention_ratio, config.epsilon) == (tau, retention_ratio, epsilon)


def test_importing_the_settings_does_not_import_torch() -> None:
    code = "import sys, llava_scissor.config; print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize("stop", [["."], (".", "\n"), []])
def test_stop_texts_are_a_list(stop) -> None:
    assert GenerationConfig(stop=stop).stop == tuple(stop)
    assert hash(GenerationConfig(stop=stop))


@pytest.mark.parametrize("stop", [".", [""], [1], None, [["."]], {".": 1}])
def test_anything_else_is_no_list_of_stop_texts(stop) -> None:
    with pytest.raises(ConfigError, match=r"^stop: got .*, expected a list of texts that are not empty$"):
        GenerationConfig(stop=stop)


def test_compressing_images_with_no_compressor_has_no_effect(caplog) -> None:
    compression(method="none", images=True)
    assert "compression.images has no effect with compression.method 'none'" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"device_map": "auto", "device": "cpu"}, "'auto' chooses the devices itself"),
        ({"device_map": "auto", "quantization": "4bit"}, "a quantised model needs one device"),
        ({"quantization": "3bit"}, "8bit"),
    ],
)
def test_devices_that_exclude_each_other(values, message) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**values)


def test_a_map_of_devices_and_quantisation_are_off_unless_asked_for() -> None:
    assert (ModelConfig().device_map, ModelConfig().quantization) == (None, None)
    assert ModelConfig(device_map="auto").device == "auto"
    assert ModelConfig(quantization="4bit", device="cuda").quantization == "4bit"
