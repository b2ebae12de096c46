"""Options about single layers, from each place where they may stand."""

import pytest

from causalprune.base.errors import UsageError
from causalprune.commands.names import load_configs
from causalprune.config.layers import LayerTarget
from causalprune.config.run import Setting
from causalprune.config.sources import resolve


def configured(tmp_path, text, command="apply-mask", **environment):
    (tmp_path / "options.toml").write_text(text)
    given = {} if command == "sweep" else {"sparsity": 0.5}
    return resolve(load_configs(), command, given, tmp_path / "options.toml", environment)


def test_a_pattern_may_hold_what_separates_it_from_the_sparsity():
    assert LayerTarget.parse(" a[=b]*=0.25", "x") == LayerTarget("a[=b]*", 0.25)
    assert str(LayerTarget.parse("fc*=.5", "x")) == "fc*=0.5"


@pytest.mark.parametrize("text", ["fc1", "=0.5", "fc1=", "fc1=half", "0.5", ""])
def test_a_sparsity_without_its_layer_or_the_other_way_round(text):
    with pytest.raises(UsageError, match=r"--layer-sparsity: expected PATTERN=S such as conv1=0\.5"):
        LayerTarget.parse(text, "--layer-sparsity")


@pytest.mark.parametrize("value", ["1", "-0.1", "nan", "inf"])
def test_a_sparsity_out_of_range(value):
    with pytest.raises(UsageError, match=rf"--layer-sparsity fc1={value}: expected a number in \[0, 1\)"):
        LayerTarget.parse(f"fc1={value}", "--layer-sparsity")


@pytest.mark.parametrize("command", ["apply-mask", "run", "sweep"])
def test_a_file_lists_them_and_the_environment_separates_them_by_commas(tmp_path, command):
    targets = (LayerTarget("a", 0.5), LayerTarget("b.*", 0.25))
    said = 'keep = ["fc*", "head"]\nlayer-sparsity = ["a=0.5", "b.*=0.25"]\n'
    variables = {"CAUSALPRUNE_KEEP": "fc*,head", "CAUSALPRUNE_LAYER_SPARSITY": "a=0.5,b.*=0.25"}
    for config in (configured(tmp_path, said, command), configured(tmp_path, "", command, **variables)):
        config = getattr(config, "base", config)
        assert (config.keep, config.layer_sparsity) == (("fc*", "head"), targets)


def test_a_setting_of_a_stage():
    assert Setting.parse("apply-mask.keep=fc*,head").value == ("fc*", "head")
    assert Setting.parse("apply-mask.layer-sparsity=a=0.5").value == (LayerTarget("a", 0.5),)


@pytest.mark.parametrize("command", ["apply-mask", "sweep"])
def test_a_switch_is_no_pattern(tmp_path, command):
    with pytest.raises(UsageError, match=r"keep in .*: expected text or a list of texts, found True"):
        configured(tmp_path, "keep = true\n", command)
