"""The names that ``import causalprune`` exports; everything else may move between versions.

``causalprune`` imports this module when one of the names is first used, so that ``import causalprune`` itself loads
neither PyTorch nor NumPy. :class:`Recorder` records a training loop, :func:`fit`, :func:`prune`, :func:`repair` and
:func:`compact` are what the commands ``fit-gamma``, ``apply-mask``, ``repair`` and ``export --compact`` do, on objects
instead of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from causalprune.data.names import TASKS
from causalprune.models.mask import Mask
from causalprune.pruning.criterion import Criterion
from causalprune.pruning.names import CHITA_RIDGE, DEFAULT_CRITERION, DEFAULT_SCOPE, SAMPLES
from causalprune.pruning.network.compact import compact
from causalprune.pruning.network.repair import repair
from causalprune.pruning.network.samples import Samples
from causalprune.pruning.network.task import PruningTask
from causalprune.solver.recording.fit import fit, fit_to_use
from causalprune.training.recorder import Recorder
from causalprune.trajectory.array_groups import Fit
from causalprune.trajectory.store import Store

__all__ = ["Criterion", "Fit", "Mask", "Recorder", "Store", "compact", "fit", "prune", "repair"]


def prune(
    model: nn.Module,
    store: str | Path | Store | None = None,
    *,
    sparsity: float | None = None,
    pattern: str | None = None,
    criterion: str | Criterion = DEFAULT_CRITERION,
    scope: str = DEFAULT_SCOPE,
    granularity: str = "parameter",
    keep: str | Iterable[str] = (),
    layer_sparsity: Mapping[str, float] | None = None,
    prune: str | Iterable[str] = (),
    prune_frozen: bool = False,
    mask: Mask | None = None,
    fit: str | Fit = "default",
    recording: str | None = None,
    inputs: Samples | None = None,
    samples: int = SAMPLES,
    task: str = "classification",
    ridge: float = CHITA_RIDGE,
    first_order: bool = False,
    exponent: float | None = None,
    dead_ends: str | None = None,
    seed: int = 0,
    memory: str = "2GiB",
    allow_other_weights: bool = False,
) -> Mask:
    """Set the weights to zero that a criterion ranks lowest, in place.

    The weights of Linear and Conv layers, of attention's projections and of recurrent layers can be pruned, P in all,
    and what else ``prune`` names. Biases and normalization are left alone, and so are tensors that were never trained.
    No layer is emptied: each keeps its best weight. What goes with the network besides
    is left as it is: statistics of batch normalization are those of before, until training or :func:`repair`.

    Args:
        model: The network, on any device; its weights are those that the recording ended or started with.
        store: The recording of its training by :class:`Recorder`: a store, its path, or its address in object storage.
            ``magnitude``, ``random``, ``lamp``, ``wanda``, ``surgeon`` and ``rank-sum`` need none.
        sparsity: S in [0, 1): round(S·P) weights are 0 afterwards, those pruned before included. None prunes every
            weight with γ = 0, the paper's rule, with the criterion ``gamma``; or says that ``pattern`` decides.
        pattern: ``"N:M"``: of each M consecutive weights of a filter or neuron, the N with the highest scores stay,
            such as ``"2:4"`` for PyTorch's semi-structured tensors
            (:func:`causalprune.pruning.network.pattern.select_pattern`).
        criterion: A name (``effect``, ``gamma``, ``magnitude``, ``obd``, …; ``docs/criteria.md`` has the formulas), or
            a :class:`Criterion` of your own.
        scope: What is ranked together: ``global``, all layers; ``layer``, each by itself to the same sparsity;
            ``uniform``, ``erk`` or ``lamp``.
        granularity: What is pruned as a whole: ``parameter``, ``filter``, ``neuron``, ``channel`` or ``layer``.
        keep: Patterns, as of :mod:`fnmatch`, of layers that stay dense, such as ``("conv1", "head*")``; the sparsity is
            that of the others.
        layer_sparsity: Sparsity of single layers by pattern; the others make up for the difference.
        prune: Patterns of names of further parameters to prune, such as ``("tokens.weight", "places")``: embeddings,
            bare parameters. A criterion that reads the recording needs them there (``Recorder(…, prune=…)``), and then
            they needn't be named here.
        prune_frozen: Also prune tensors that weren't trained.
        mask: What is pruned already, if there is no store to say so.
        fit: The fit that ``effect``, ``gamma`` and ``curvature`` read, or its name in the store. One with all defaults
            is made if there is none.
        recording: Name of a recording in the store; None for the last.
        inputs: Inputs of the network, for criteria that measure layers (``wanda``, ``surgeon``, ``rank-sum``), for
            filters, neurons and channels, and for dead ends: a tensor (N, …), or batches such as a DataLoader's, of
            which inputs may be several, in a tuple or a dictionary. Labels aren't used.
        samples: How many of them.
        task: What the outputs are, for criteria that measure layers: ``classification``, ``regression``,
            ``multi-label``, ``segmentation`` or ``next-token``.
        ridge: Penalty of ``chita``, a multiple of the mean over weights of Σ g², and of ``obs``, of Σ d·g².
        first_order: Add the gradient to the loss that ``obs`` minimizes, instead of its curvature alone.
        exponent: p in |γ|^p·θ² of ``effect``, 0.125 unless given, and in θ²·mean(g²)^p of ``obd``, 1 unless given.
        dead_ends: What becomes of weights that reach no output any more, because the others of their paths are pruned:
            they go ``first``, and others are kept instead, or as they are ``scored``. None is ``first`` for ``effect``
            where there are ``inputs`` and single weights are ranked, else ``scored``.
        seed: Of ``random``, and of the labels that are drawn to measure layers.
        memory: Largest matrix of gradients that ``chita`` and ``obs`` hold.
        allow_other_weights: Take a recording that ``model`` neither started nor ended.

    Returns:
        Which weights are kept. ``mask.hold(optimizer)`` keeps the others at 0 in further training.

    Raises:
        UsageError: A value out of range, a pattern that matches nothing, sparsities that can't be met together, or a
            criterion that reads more than was given.
        MismatchError: The store of another network, of weights that have changed since, or of an optimizer that can't
            serve the criterion.
        DataError: No store; scores that aren't finite; nothing left to prune.
        CorruptError: The store is damaged.

    Example:
        >>> import torch, causalprune as cp
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> mask = cp.prune(model, sparsity=0.9, criterion="magnitude", keep="2")
        >>> mask.sparsity, [(layer.name, layer.kept) for layer in mask.per_layer()]
        (0.71875, [('0.weight', 13), ('2.weight', 32)])
    """
    pruning = PruningTask.of(
        model,
        store,
        criterion=criterion,
        recording=recording,
        mask=mask,
        prune=prune,
        allow_other_weights=allow_other_weights,
    )
    used = None
    if pruning.store is not None and pruning.criterion.reads_gamma:
        used = fit_to_use(pruning.store, recording, fit)
    return pruning.prune(
        used,
        sparsity=sparsity,
        pattern=pattern,
        scope=scope,
        granularity=granularity,
        keep=keep,
        layer_sparsity=layer_sparsity or {},
        prune_frozen=prune_frozen,
        inputs=inputs,
        samples=samples,
        drawn_loss=TASKS.load(task)().drawn_loss,
        ridge=ridge,
        first_order=first_order,
        exponent=exponent,
        dead_ends=dead_ends,
        seed=seed,
        memory=memory,
    )
