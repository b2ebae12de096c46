"""Criteria: against closed forms on quadratics, and the contract that lets others be added."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from causalprune.base.errors import DataError, MismatchError, UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex
from causalprune.pruning.criteria import GAMMA, load_criterion
from causalprune.pruning.criterion import NEEDS, Criterion, CriterionInputs, Scores
from causalprune.pruning.gradients import GradientMatrix, mean_squared_gradient
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.names import CRITERIA, ENTRY_POINT_GROUP, added_criteria, check_criterion
from causalprune.trajectory.steps import UpdateRule
from causalprune.trajectory.steps.learning_rates import LearningRates

P = 6
RNG = np.random.default_rng(0)
FULL = {
    "theta": RNG.normal(size=P).astype(np.float32),
    "gamma": RNG.normal(size=P),
    "dual_correlation": RNG.random(P),
    "mean_squared_gradient": RNG.random(P),
    "gradients": GradientMatrix.from_array(RNG.normal(size=(4, P))),
    "mask": Mask.all(ParameterIndex((ParameterEntry("weight", (2, 3), 0),))),
    "layers": {
        "weight": LayerStatistics(
            torch.eye(3, dtype=torch.float64)[None],
            torch.ones(1, 3, dtype=torch.float64),
            torch.ones(1, 2, dtype=torch.float64),
            torch.zeros(1, 3, dtype=torch.float64),
        )
    },
    "project": lambda scores: scores >= np.median(scores),
    "learning_rate": 0.1,
}


def score(name: str, **inputs) -> Scores:
    return load_criterion(name).score(CriterionInputs(**{k: np.asarray(v, dtype=float) for k, v in inputs.items()}))


# Closed forms ---------------------------------------------------------------------------------------------------------


def test_curvature_recovers_what_removing_a_weight_of_a_quadratic_costs() -> None:
    """L = ½Σ h_k(θ_k − m_k)²: γ is found by least squares from a real SGD run, and the saliency is the true cost."""
    h, m, lr = np.array([0.5, 1.0, 3.0, -0.2]), np.array([1.0, -2.0, 0.3, 0.7]), 0.05
    theta = m + np.array([1.0, 2.0, -1.5, 1.0])
    deltas, changes = [], []
    for _ in range(12):
        delta = -lr * h * (theta - m)
        changes.append(0.5 * h @ ((theta + delta - m) ** 2 - (theta - m) ** 2))
        deltas.append(delta)
        theta = theta + delta
    gamma = np.linalg.lstsq(np.square(deltas), np.array(changes), rcond=None)[0]
    saliency = load_criterion("curvature").score(CriterionInputs(theta=m, gamma=gamma, learning_rate=lr)).primary
    cost = [0.5 * h @ ((np.where(np.arange(4) == k, 0, m) - m) ** 2) for k in range(4)]
    assert saliency == pytest.approx(cost, rel=1e-5)


def test_obd_recovers_the_saliency_of_a_linear_regression() -> None:
    """With unit noise the Fisher information is the Hessian E[x²], and the saliency ½θ²h (LeCun et al. 1989)."""
    rng = np.random.default_rng(1)
    theta, deviation, lr = np.array([1.0, -0.5, 2.0, 0.1]), np.array([0.3, 2.0, 1.0, 4.0]), 0.01
    x = rng.normal(size=(50_000, 4)) * deviation
    gradient = -rng.normal(size=(50_000, 1)) * x  # of ½(y − θᵀx)² at the true θ, where y − θᵀx is the noise
    blocks = [(i, -lr * gradient[i : i + 64].astype(np.float32)) for i in range(0, 50_000, 64)]
    fisher = mean_squared_gradient(blocks, LearningRates.same(np.full(50_000, lr)), 4)
    assert fisher == pytest.approx(deviation**2, rel=0.05)
    obd = score("obd", theta=theta, mean_squared_gradient=fisher).primary
    assert obd / 2 == pytest.approx(0.5 * deviation**2 * theta**2, rel=0.05)


def test_effect_sums_to_the_loss_change_of_a_step_to_the_origin() -> None:
    """Where γ is −1/η + h/2 for all k, the step Δθ = −θ of plain SGD changes the loss by Σ γ_k θ_k²."""
    # SGD steps straight to the origin if the gradient there is θ/η: L = θᵀ·c + ½hθ² with c = θ(1/η − h).
    theta, lr, h = np.array([1.0, -3.0, 0.2]), 0.1, 25.0
    linear = theta * (1 / lr - h)
    change = 0 - (linear @ theta + 0.5 * h * theta @ theta)
    gamma = np.full(3, -1 / lr + h / 2)
    assert score("effect", theta=theta, gamma=gamma, dual_correlation=np.ones(3)).primary.sum() == pytest.approx(
        np.abs(change)
    )


# The order ------------------------------------------------------------------------------------------------------------


def order(scores: Scores) -> list[int]:
    return np.lexsort(scores.keys[::-1]).tolist()


def test_gamma_ranks_the_zeros_by_how_near_they_are_to_entering() -> None:
    scores = score("gamma", theta=np.ones(4), gamma=[0, -2.0, 0, 1.0], dual_correlation=[0.9, 1.0, 0.4, 1.0])
    assert order(scores) == [2, 0, 3, 1]


def test_effect_weighs_both_by_the_weight() -> None:
    scores = score("effect", theta=[1.0, 0.1, 3.0, 1.0], gamma=[0, -2.0, 0, 1.0], dual_correlation=[0.9, 1.0, 0.4, 1.0])
    assert order(scores) == [0, 2, 1, 3]


def tempered(name: str, exponent: float, **inputs) -> Scores:
    return load_criterion(name).score(CriterionInputs(exponent=exponent, **inputs))


@pytest.mark.parametrize("name", ["effect", "obd"])
def test_an_exponent_of_0_is_magnitude_and_of_1_leaves_out_the_power(name: str) -> None:
    """With weights of equal size, zeros, and every second γ or squared gradient 0, in one lag and in three."""
    rng = np.random.default_rng(2)
    theta = rng.integers(-20, 21, 500).astype(np.float32) / np.float32(7)
    measured = rng.random(500) * (np.arange(500) % 2)
    gamma = np.stack([measured, -measured, 0 * measured])
    for lags in (gamma[0], gamma):
        inputs = {"theta": theta, "gamma": lags, "dual_correlation": rng.random(lags.shape)}
        inputs["mean_squared_gradient"] = measured
        scores = tempered(name, 0, **inputs)
        magnitude = load_criterion("magnitude").score(CriterionInputs(theta=theta))
        assert order(scores) == order(magnitude)
        assert len(set(scores.primary)) == len(set(magnitude.primary)) < 500
        factor = np.abs(np.atleast_2d(lags)).sum(0) if name == "effect" else measured
        assert np.array_equal(tempered(name, 1, **inputs).primary, factor * theta.astype(float) ** 2)


def test_an_exponent_tempers_the_coefficients_and_the_kkt_scores() -> None:
    gamma, dual, theta = np.array([16.0, -81.0, 0.0, 0.0]), np.array([1.0, 1.0, 1 / 16, 0.5]), np.array([3.0, 2, 4, 1])
    scores = tempered("effect", 0.25, theta=theta, gamma=gamma, dual_correlation=dual)
    assert scores.primary.tolist() == pytest.approx([18, 12, 0, 0])
    assert scores.secondary is not None
    assert scores.secondary.tolist() == pytest.approx([9, 4, 8, 0.5**0.25])
    assert tempered("obd", 0.25, theta=theta, mean_squared_gradient=gamma**2).primary.tolist() == pytest.approx(
        [36, 36, 0, 0]
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("effect", {"gamma": np.array([10.0, 0.5]), "dual_correlation": np.array([0.5, 0.5])}),
        ("obd", {"mean_squared_gradient": np.array([10.0, 0.5])}),
    ],
)
def test_an_exponent_that_makes_scores_infinite_is_refused(name: str, inputs: dict[str, np.ndarray]) -> None:
    assert np.all(np.isfinite(tempered(name, 300, theta=np.ones(2), **inputs).primary))
    with pytest.raises(UsageError, match="`exponent`: expected one with which the scores are finite, found 400"):
        tempered(name, 400, theta=np.ones(2), **inputs)


def test_only_tempered_criteria_accept_another_exponent() -> None:
    for name in CRITERIA:
        criterion = load_criterion(name)
        reads = not np.array_equal(
            criterion.score(CriterionInputs(**FULL)).primary,
            criterion.score(CriterionInputs(**FULL, exponent=0.5)).primary,
        )
        assert reads == criterion.tempered == (name in ("effect", "obd"))
        criterion.require_exponent(1)
        if reads:
            criterion.require_exponent(0)
            continue
        with pytest.raises(UsageError, match=rf"`exponent`: expected 1, because criterion {name} has .*, found 0\.5"):
            criterion.require_exponent(0.5)


@pytest.mark.parametrize("exponent", [-0.5, np.nan, np.inf])
def test_an_exponent_that_cant_be(exponent: float) -> None:
    with pytest.raises(DataError, match="exponent: expected a finite number of at least 0"):
        CriterionInputs(**FULL, exponent=exponent)


@pytest.mark.parametrize("name", ["gamma", "effect"])
def test_with_lags_only_three_zeros_make_a_zero(name: str) -> None:
    gamma = np.zeros((3, 5))
    gamma[0, 0], gamma[1, 1], gamma[2, 2] = 1.0, -2.0, 1e-300
    dual = np.zeros((3, 5))
    dual[:, 3], dual[:, 4] = [0.1, 0.9, 0.2], [0.5, 0.5, 0.5]
    scores = score(name, theta=np.ones(5), gamma=gamma, dual_correlation=dual)
    assert np.flatnonzero(scores.primary == 0).tolist() == [3, 4]
    assert order(scores) == [4, 3, 2, 0, 1]


def test_a_random_order_is_uniform_and_depends_on_seed_and_position_only() -> None:
    def draw(total: int, seed: int) -> np.ndarray:
        return load_criterion("random").score(CriterionInputs(theta=np.zeros(total), seed=seed)).primary

    assert np.array_equal(draw(10_000, 3)[:50], draw(50, 3))
    assert not np.intersect1d(draw(1000, 3), draw(1000, 4)).size
    deciles = np.histogram(draw(10_000, 3), bins=10, range=(0, 1))[0]
    assert deciles.sum() == 10_000
    assert np.abs(deciles - 1000).max() < 150
    # Another release of NumPy or of causalprune must not change which weights a seed prunes.
    assert draw(2, 0).tolist() == RANDOM_SEED_0


RANDOM_SEED_0 = [0.4474081712540844, 0.41985243611409306]


# The contract ---------------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_criteria() -> None:
    assert all(load_criterion(name).name == name and check_criterion(name) is None for name in CRITERIA)


def test_names_need_neither_torch_nor_numpy() -> None:
    code = "import sys, causalprune.pruning.names; print({'torch', 'numpy'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", CRITERIA)
def test_a_criterion_needs_what_it_declares_and_no_more(name: str) -> None:
    criterion = load_criterion(name)
    enough = {"theta": FULL["theta"]} | {need: FULL[need] for need in criterion.needs}
    scores = criterion.score(CriterionInputs(**enough))
    assert np.array_equal(scores.primary, criterion.score(CriterionInputs(**FULL)).primary)
    for key in scores.keys:
        assert (key.dtype, key.shape) == (np.float64, (P,))
    for need in criterion.needs:
        with pytest.raises(MismatchError, match=f"criterion {name}: expected {NEEDS[need].what}, found none"):
            criterion.score(CriterionInputs(**{k: v for k, v in enough.items() if k != need}))


def test_curvature_refuses_lags() -> None:
    inputs = CriterionInputs(theta=np.ones(2), gamma=np.ones((3, 2)), learning_rate=0.1)
    with pytest.raises(MismatchError, match="a fit without lags"):
        load_criterion("curvature").score(inputs)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma": np.ones(P + 1)}, r"gamma: expected \(6,\) or \(3, 6\), found \(7,\)"),
        ({"gamma": np.ones((3, P))}, r"dual_correlation: expected \(3, 6\), found \(6,\)"),
        ({"theta": np.ones((2, 3))}, r"theta: expected \(6,\), found \(2, 3\)"),
        ({"mean_squared_gradient": np.ones(1)}, "mean_squared_gradient"),
        (
            {"mask": Mask.all(ParameterIndex((ParameterEntry("weight", (5,), 0),)))},
            "mask: expected 6 parameters, found 5",
        ),
    ],
)
def test_inputs_that_dont_belong_together(wrong, message: str) -> None:
    with pytest.raises(MismatchError, match=message):
        CriterionInputs(**(FULL | wrong))


@pytest.mark.parametrize("lr", [0.0, -1.0, np.nan, np.inf])
def test_a_learning_rate_that_cant_be(lr: float) -> None:
    with pytest.raises(DataError, match="learning rate"):
        CriterionInputs(**(FULL | {"learning_rate": lr}))


def test_scores_of_another_length() -> None:
    with pytest.raises(MismatchError, match="secondary scores"):
        Scores(np.ones(3), np.ones(2))
    with pytest.raises(MismatchError, match="criterion short: expected 6 scores, found 2"):
        Criterion("short", lambda _: Scores(np.ones(2))).score(CriterionInputs(**FULL))


@pytest.mark.parametrize(("says", "theta", "found"), [(False, np.ones(P), "new weights"), (True, None, "none")])
def test_new_weights_that_were_not_announced(says: bool, theta, found: str) -> None:
    with pytest.raises(MismatchError, match=f"reweights=True, and from no other, found {found}"):
        Criterion("odd", lambda _: Scores(np.ones(P), theta=theta), reweights=says).score(CriterionInputs(**FULL))


def test_an_unknown_need() -> None:
    with pytest.raises(UsageError, match="needs of criterion mine"):
        Criterion("mine", lambda inputs: Scores(inputs.theta), frozenset({"hessian"}))


def test_what_a_recording_lacks_is_said_with_the_remedy() -> None:
    momentum = UpdateRule(momentum=0.9)
    with pytest.raises(
        MismatchError, match=r"criterion obd: expected the gradients .*, found one with momentum 0\.9; r"
    ):
        load_criterion("obd").require(momentum, ())
    with pytest.raises(MismatchError, match=r"--criterion x: .* momentum 0.9 in run; another"):
        load_criterion("obd").require(momentum, (), subject="--criterion x", where=" in run", remedy="another")
    load_criterion("obd").require(UpdateRule(), (0.1, 0.2))
    with pytest.raises(MismatchError, match=r"learning rates from 0\.1 to 0\.2"):
        load_criterion("curvature").require(UpdateRule(), (0.1, 0.2))
    load_criterion("effect").require(momentum, (0.1, 0.2))


# Criteria of other packages -------------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with good and bad entry points."""
    (tmp_path / "pruning_plugin.py").write_text(
        "from causalprune.pruning.criterion import Criterion, Scores\n"
        "cubed = Criterion('cubed', lambda inputs: Scores(abs(inputs.theta) ** 3.0))\n"
        "number = 3\n"
        "raises = Criterion('raises', lambda inputs: Scores(inputs.theta / (1 // 0)))\n"
        "array = Criterion('array', lambda inputs: abs(inputs.theta))\n"
        "as_list = Criterion('as_list', lambda inputs: Scores(list(inputs.theta)))\n"
    )
    info = tmp_path / "pruning_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pruning-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n"
        "cubed = pruning_plugin:cubed\n"
        "number = pruning_plugin:number\n"
        "raises = pruning_plugin:raises\n"
        "array = pruning_plugin:array\n"
        "list = pruning_plugin:as_list\n"
        "broken = pruning_plugin_absent:cubed\n"
        "gamma = pruning_plugin:cubed\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pruning_plugin", raising=False)


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_adds_a_criterion() -> None:
    assert check_criterion("cubed") is None
    scores = load_criterion("cubed").score(CriterionInputs(theta=np.array([-2.0, 1.0])))
    assert scores.primary.tolist() == [8, 1]


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_cant_replace_a_built_in_criterion() -> None:
    assert load_criterion("gamma") is GAMMA
    assert "gamma" not in added_criteria()


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "criterion broken .*: expected to be imported, found ModuleNotFoundError"),
        ("number", "criterion number .*: expected a causalprune.pruning.criterion.Criterion, found int"),
        ("cubedd", r"`criterion`: expected one of gamma, .*cubed.* \(did you mean 'cubed'\?\), found 'cubedd'"),
    ],
)
def test_a_criterion_that_cant_be_had(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_criterion(name)


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "raises",
            r"raises \(pruning_plugin:raises\): expected scores, found .* own code raised ZeroDivisionError",
        ),
        ("array", r"array \(pruning_plugin:array\): expected .*\.Scores, found that its own code returned ndarray"),
        ("list", r"list \(pruning_plugin:as_list\): expected scores, found that its own code raised AttributeError"),
    ],
)
def test_what_goes_wrong_in_an_added_criterion_is_said_to_be_its_own(name: str, message: str) -> None:
    with pytest.raises(DataError, match=f"criterion {message}"):
        load_criterion(name).score(CriterionInputs(**FULL))


@pytest.mark.usefixtures("plugin")
def test_a_defect_of_a_built_in_criterion_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Criterion("magnitude", lambda inputs: Scores(inputs.theta / (1 // 0)))
    monkeypatch.setattr("causalprune.pruning.criteria.MAGNITUDE", broken)
    with pytest.raises(ZeroDivisionError):
        load_criterion("magnitude").score(CriterionInputs(**FULL))
