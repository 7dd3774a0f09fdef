"""The linear softmax classifier of A.4: names the factor that a z_diff kept equal.

Loss: mean negative log likelihood of the points plus `ridge / 2` times the sum of the squared weights; the biases are
free. With a ridge it has one minimum, so both ways of fitting lead to the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.special
from numpy.typing import NDArray

# L-BFGS stops once no entry of the gradient of the loss exceeds this. At 1e-9 at most one test point in 5,000 was named
# otherwise.
GRADIENT_TOLERANCE = 1e-5
LBFGS_ITERATIONS = 1_000
# Iterations at least before a search starts again in new coordinates. Over the codes of ten trials of the 2D shapes
# starting again took a third off the time of all fits, and three quarters off that of the longest.
LEAST_PATIENCE = 20
# The paper's optimiser, rate and "until convergence" (A.4). Its steps shrink faster than the gradient, so that the
# tolerance above is out of its reach; it stops when so many steps lower the full loss by less than so many nats.
ADAGRAD_RATE = 1e-2
ADAGRAD_BATCH = 256
ADAGRAD_CHECK_EVERY = 1_000
ADAGRAD_LEAST_GAIN = 5e-3
ADAGRAD_STEPS = 50_000


@dataclass(frozen=True)
class Fit:
    """A fitted classifier.

    Attributes:
        weights: (K, M + 1) float64, one row per class, the bias last.
        loss: the training loss, ridge included, in nats per point.
        converged: whether the fit met its own rule within its bound on iterations.
    """

    weights: NDArray[np.float64]
    loss: float
    converged: bool


class SoftmaxProblem:
    """Loss and gradient of one classification problem.

    Args:
        points: (B, M) float, one z_diff a row.
        classes: (B,) int in [0, class_count).
        class_count: K.
        ridge: weight of the penalty, at least 0.
    """

    def __init__(
        self, points: NDArray[np.floating], classes: NDArray[np.int64], class_count: int, ridge: float
    ) -> None:
        count, size = points.shape
        self.points = np.ones((size + 1, count))  # a column per point: softmax over a short leading axis is vectorised
        self.points[:-1] = points.T
        self.classes = classes
        self.class_count = class_count
        self.penalty = np.full(size + 1, ridge)
        self.penalty[-1] = 0.0
        # The labels enter the loss through these sums alone, so no evaluation touches them point by point.
        self.class_sums = np.stack([self.points[:, classes == k].sum(axis=1) for k in range(class_count)]) / count

    def loss_and_gradient(self, weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Loss (nats per point) and its gradient (K, M + 1) at `weights` (K, M + 1)."""
        count = self.points.shape[1]
        logits = weights @ self.points
        highest = logits.max(axis=0)
        logits -= highest
        np.exp(logits, out=logits)
        total = logits.sum(axis=0)
        penalised = weights * self.penalty
        loss = (np.log(total) + highest).mean() - np.vdot(weights, self.class_sums) + 0.5 * np.vdot(weights, penalised)
        logits /= total
        return float(loss), logits @ self.points.T / count - self.class_sums + penalised

    def second_moment(self) -> NDArray[np.float64]:
        """(M + 1, M + 1) second moment of the points over K, and the penalty.

        At zero weights it is the Hessian for each class, of changes that sum to zero over the classes.
        """
        moment: NDArray[np.float64] = self.points @ self.points.T / (self.points.shape[1] * self.class_count)
        moment[np.diag_indices_from(moment)] += self.penalty
        return moment

    def hessian(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Second derivatives of the loss at `weights` (K, M + 1): (K (M + 1), K (M + 1)), class by class."""
        size, count = self.points.shape
        weighted = (scipy.special.softmax(weights @ self.points, axis=0)[:, None] * self.points).reshape(-1, count)
        hessian: NDArray[np.float64] = weighted @ weighted.T / -count
        own = hessian.reshape(self.class_count, size, self.class_count, size)
        for k, of_class in enumerate(weighted.reshape(self.class_count, size, count)):
            own[k, :, k] += of_class @ self.points.T / count + np.diag(self.penalty)
        return hessian


def fit_lbfgs(problem: SoftmaxProblem, iterations: int = LBFGS_ITERATIONS, least_patience: int = LEAST_PATIENCE) -> Fit:
    """Full-batch L-BFGS from zero weights to GRADIENT_TOLERANCE.

    The search runs in coordinates where the loss is round at its start, and starts again, in new ones, once it has
    taken as long as finding them takes: where codes tell some factors well and others hardly at all, the loss is no
    longer round once the weights have grown. That changes the path and the time, not the minimum. Where there are more
    latents than points no coordinates are sought: they would take longer to find than the minimum.

    Args:
        problem: what is fitted.
        iterations: of all searches together, at most.
        least_patience: iterations before the search starts again, at least.
    """
    size, count = problem.points.shape
    weights = np.zeros_like(problem.class_sums)
    if size > count:
        return _search(problem, weights, None, iterations)
    moment = problem.second_moment()
    # A vector added to the biases of all classes changes nothing, nor does a dead latent's weight without a ridge.
    jitter = 1e-9 * np.trace(moment)
    # The Hessian takes so many times the multiplications of an evaluation.
    patience = max(least_patience, weights.size // 2)
    fit = _search(problem, weights, _whitening(moment, jitter), min(patience, iterations))
    for done in range(patience, iterations, patience):
        if fit.converged:
            break
        whiten = _whitening(problem.hessian(fit.weights), jitter)
        fit = _search(problem, fit.weights, whiten, min(patience, iterations - done))
    return fit


def _search(
    problem: SoftmaxProblem, start: NDArray[np.float64], whiten: NDArray[np.float64] | None, iterations: int
) -> Fit:
    """L-BFGS from `start`; `whiten` is of one class's weights (M + 1, M + 1), the same for all, or of all at once."""
    steepest = np.inf

    def weights_at(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        step = flat if whiten is None else flat.reshape(-1, len(whiten)) @ whiten
        return start + step.reshape(start.shape)

    def evaluate(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        nonlocal steepest
        loss, gradient = problem.loss_and_gradient(weights_at(flat))
        steepest = float(np.abs(gradient).max())
        return loss, (gradient if whiten is None else gradient.reshape(-1, len(whiten)) @ whiten.T).ravel()

    def stop(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        if steepest <= GRADIENT_TOLERANCE:
            raise StopIteration

    found = scipy.optimize.minimize(
        evaluate,
        np.zeros(start.size),
        jac=True,
        method="L-BFGS-B",
        callback=stop,
        options={"maxiter": iterations, "maxfun": 2 * iterations, "gtol": 0.0, "ftol": 0.0, "maxcor": 40},
    )
    weights = weights_at(found.x)
    loss, gradient = problem.loss_and_gradient(weights)
    return Fit(weights, loss, bool(np.abs(gradient).max() <= GRADIENT_TOLERANCE))


def _whitening(hessian: NDArray[np.float64], jitter: float) -> NDArray[np.float64]:
    """Coordinates, as rows, in which a loss of this Hessian is round; `jitter` is the least curvature it counts as."""
    root = np.linalg.cholesky(hessian + jitter * np.eye(len(hessian)))
    whiten: NDArray[np.float64] = scipy.linalg.solve_triangular(root, np.eye(len(root)), lower=True)
    return whiten


def fit_adagrad(
    problems: Sequence[SoftmaxProblem], generator: np.random.Generator, *, steps: int = ADAGRAD_STEPS
) -> list[Fit]:
    """The paper's Adagrad at 1e-2 (A.4) from zero weights and sums of squares, on batches of ADAGRAD_BATCH points.

    They are drawn with replacement. It stops when ADAGRAD_CHECK_EVERY steps gain less than ADAGRAD_LEAST_GAIN, or
    unconverged after `steps`. Batches are float32, since with many latents (raw pixels) gathering them takes the time.
    A convex problem needs no ADAGRAD_START (`bvae_tune.training.optimizers`): no first step leads it astray for good.

    Args:
        problems: P of the same classes, number of latents and ridge; each is fitted as if it were alone.
        generator: of the batches, the same for all.
        steps: a multiple of ADAGRAD_CHECK_EVERY.
    """
    like, count = problems[0], problems[0].points.shape[1]
    one_hot = np.eye(like.class_count, dtype=np.float32)[like.classes]
    rows = np.stack([np.ascontiguousarray(problem.points.T, np.float32) for problem in problems], axis=1)
    weights, squares = np.zeros((2, len(problems), *like.class_sums.shape))
    fits = [Fit(each, float(np.log(like.class_count)), False) for each in weights.copy()]
    going = list(range(len(problems)))
    for _ in range(steps // ADAGRAD_CHECK_EVERY):
        for chosen in generator.integers(count, size=(ADAGRAD_CHECK_EVERY, ADAGRAD_BATCH)):
            batch = rows.take(chosen, axis=0)  # (batch, P, M + 1)
            # (P, K, batch): sums over a short axis that is not the last are fast.
            logits = weights.astype(np.float32) @ batch.transpose(1, 2, 0)
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            logits /= logits.sum(axis=1, keepdims=True)
            logits -= one_hot.take(chosen, axis=0).T
            gradient = logits @ batch.transpose(1, 0, 2) / ADAGRAD_BATCH + weights * like.penalty
            squares += gradient**2
            weights -= ADAGRAD_RATE * gradient / (np.sqrt(squares) + 1e-10)
        for place, each in zip(going, weights.copy(), strict=True):
            loss, _ = problems[place].loss_and_gradient(each)
            fits[place] = Fit(each, loss, fits[place].loss - loss < ADAGRAD_LEAST_GAIN)
        left = [at for at, place in enumerate(going) if not fits[place].converged]
        if not left:
            break
        if len(left) < len(going):
            going = [going[at] for at in left]
            rows, weights, squares = np.ascontiguousarray(rows[:, left]), weights[left], squares[left]
    return fits


def accuracy(fit: Fit, points: NDArray[np.floating], classes: NDArray[np.int64]) -> float:
    """Share of `points` (B, M) whose most probable class is that of `classes` (B,)."""
    logits = points @ fit.weights[:, :-1].T + fit.weights[:, -1]
    return float((logits.argmax(axis=1) == classes).mean())
