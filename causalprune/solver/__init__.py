"""Fit γ: the exact Lasso or elastic net of a recording that needn't fit in memory, and two reference solvers.

The exact solver screens columns while it streams over the store, solves on a working set in memory, and certifies the
solution by the duality gap over all columns. The steps, and the module of each:

================  ====================================================================================================
fit               Entry: :func:`fit.fit` runs a solver of the registry in ``names``. What a further solver builds on.
problem           What is minimized: penalties, α, scaling of the columns, row weights, folds, resamples.
source, features  The columns of X in blocks: an abstract source, and Δθ² (lags, sums over groups) from a recording.
exact_fit         Top of the exact fit: first pass, certification, choice of α, bootstrap, KKT scores, result.
streaming         The passes over the blocks: solve while scanning, then read again what isn't certified.
region            One range of columns fitted by itself: takes in blocks, solves its tasks, certifies them.
working_set       The columns in memory, and how the memory is divided.
screening         Which columns join the working set, and bounds on the correlations of all others.
path              Solves for every α over the columns in memory, on a small core of them.
active_set        Solves for one α: Newton steps on the active set with a Cholesky factor.
dual_newton       The same when more columns are active than there are rows (elastic net).
certificate       The proof: KKT conditions, dual feasible point and duality gap over all columns.
kkt_scores        The KKT score of every column, and from them the equicorrelation set.
products          Correlations of blocks with residuals in float32, with a proven error bound; also on a GPU that they
                  don't fit into, or that several processes fit with.
process_group     Divides the blocks among several processes.
evidence          The result: γ, its KKT scores and the evidence.
device            The same for columns that lie in the memory of a GPU: nothing to screen, and one pass over the store.
reference         Solvers to compare with: scikit-learn's, and the truncated gradient of the paper's authors.
================  ====================================================================================================
"""
