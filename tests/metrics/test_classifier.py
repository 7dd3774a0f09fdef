"""What a convex problem promises of its two fits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime, check_grad
from sklearn.linear_model import LogisticRegression

from bvae_tune.metrics import classifier
from bvae_tune.metrics.classifier import SoftmaxProblem, accuracy, fit_adagrad, fit_lbfgs


def clouds(spread: float, seed: int = 0, points: int = 2_000) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Three Gaussian clouds in five dimensions, of very different scales, that overlap the more the larger `spread`."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(3, size=points)
    centres = rng.normal(size=(3, 5))
    return (centres[classes] + spread * rng.normal(size=(points, 5))) * [1, 1, 0.1, 0.01, 3], classes


def uneven_codes() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean differences over four pairs of ten codes that mix four factors of very different strength."""
    rng = np.random.default_rng(0)
    classes = rng.integers(4, size=5_000)
    changes = rng.uniform(-1, 1, size=(4, 5_000, 4))
    changes[:, np.arange(5_000), classes] = 0
    points = np.abs(changes @ (np.array([[1], [1], [0.1], [0.01]]) * rng.normal(size=(4, 10)))).mean(axis=0)
    return points / points.std(), classes


class CountingProblem(SoftmaxProblem):
    """Knows how often its loss was asked for."""

    evaluations = 0

    def loss_and_gradient(self, weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        self.evaluations += 1
        return super().loss_and_gradient(weights)


def test_gradient_is_that_of_the_loss() -> None:
    points, classes = clouds(1.0, points=50)
    problem = SoftmaxProblem(points, classes, 3, ridge=0.1)
    start = np.random.default_rng(1).normal(size=18)
    error = check_grad(
        lambda flat: problem.loss_and_gradient(flat.reshape(3, 6))[0],
        lambda flat: problem.loss_and_gradient(flat.reshape(3, 6))[1].ravel(),
        start,
    )
    assert error < 1e-5


def test_hessian_is_that_of_the_loss() -> None:
    points, classes = clouds(1.0, points=50)
    problem = SoftmaxProblem(points, classes, 3, ridge=0.1)
    start = np.random.default_rng(1).normal(size=18)
    slopes = approx_fprime(start, lambda flat: problem.loss_and_gradient(flat.reshape(3, 6))[1].ravel())
    hessian = problem.hessian(start.reshape(3, 6))
    assert hessian == pytest.approx(slopes, abs=1e-5)
    at_zero = problem.hessian(np.zeros((3, 6)))
    assert problem.second_moment() == pytest.approx(at_zero[:6, :6] - at_zero[:6, 6:12])


@pytest.mark.parametrize(("count", "size"), [(2_000, 5), (40, 60)])
def test_minimum_is_that_of_scikit_learn(count: int, size: int) -> None:
    points, classes = clouds(1.0, points=count)
    points = np.hstack([points, np.random.default_rng(3).normal(size=(len(points), size - 5))])
    ridge = 1e-2
    fit = fit_lbfgs(SoftmaxProblem(points, classes, 3, ridge))
    theirs = LogisticRegression(C=1 / (ridge * len(points)), tol=1e-10, max_iter=10_000).fit(points, classes)
    assert fit.converged
    assert fit.weights[:, :-1] == pytest.approx(theirs.coef_, abs=2e-3)
    assert accuracy(fit, points, classes) == pytest.approx(theirs.score(points, classes), abs=1e-3)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_lbfgs_has_the_lower_loss_and_adagrad_stays_above_it(spread: float) -> None:
    points, classes = clouds(spread)
    problem = SoftmaxProblem(points / points.std(), classes, 3, 1e-6)
    best = fit_lbfgs(problem)
    (slow,) = fit_adagrad([problem], np.random.default_rng(2))
    assert best.converged
    assert slow.converged
    assert best.loss <= slow.loss < np.log(3)
    # A convex loss lies above its tangents: no weights, Adagrad's included, are better by more than this.
    _, gradient = problem.loss_and_gradient(best.weights)
    assert slow.loss >= best.loss + np.vdot(gradient, slow.weights - best.weights)


@pytest.mark.parametrize("patience", [1, classifier.LEAST_PATIENCE])
@pytest.mark.parametrize("ridge", [1e-6, 0.0])
def test_separable_points_have_a_fit(ridge: float, patience: int) -> None:
    points, classes = clouds(0.01)
    fit = fit_lbfgs(SoftmaxProblem(points / points.std(), classes, 3, ridge), least_patience=patience)
    assert fit.converged
    assert np.isfinite(fit.weights).all()
    assert accuracy(fit, points / points.std(), classes) == 1


@pytest.mark.parametrize("patience", [1, classifier.LEAST_PATIENCE])
def test_dead_and_repeated_columns_leave_the_fit_alone(patience: int) -> None:
    points, classes = clouds(1.0)
    wide = np.hstack([points, np.zeros((len(points), 2)), points[:, :1]])
    problems = (SoftmaxProblem(each / points.std(), classes, 3, 1e-6) for each in (points, wide))
    plain, padded = (fit_lbfgs(problem, least_patience=patience) for problem in problems)
    assert padded.converged
    assert padded.loss == pytest.approx(plain.loss, abs=1e-5)


def test_new_coordinates_save_most_of_a_long_search() -> None:
    points, classes = uneven_codes()
    theirs = LogisticRegression(C=1 / (1e-6 * len(points)), tol=1e-10, max_iter=10_000).fit(points, classes)
    evaluations = []
    for patience in (classifier.LEAST_PATIENCE, classifier.LBFGS_ITERATIONS):
        problem = CountingProblem(points, classes, 4, 1e-6)
        fit = fit_lbfgs(problem, least_patience=patience)
        assert fit.converged
        assert accuracy(fit, points, classes) == pytest.approx(theirs.score(points, classes), abs=5e-4)
        evaluations.append(problem.evaluations)
    assert evaluations[0] < evaluations[1] / 2


@pytest.mark.parametrize("bound", [2, 22, 30])
def test_the_bound_on_iterations_is_kept_and_reported(bound: int) -> None:
    points, classes = uneven_codes()
    problem = CountingProblem(points, classes, 4, 1e-6)
    assert not fit_lbfgs(problem, iterations=bound).converged
    assert bound < problem.evaluations <= bound + 10  # a line search may take two


def test_the_bound_on_steps_is_reported() -> None:
    points, classes = clouds(1.0)
    problem = SoftmaxProblem(points / points.std(), classes, 3, 1e-6)
    few = classifier.ADAGRAD_CHECK_EVERY
    assert not fit_adagrad([problem], np.random.default_rng(2), steps=few)[0].converged


def test_adagrad_fits_each_of_several_as_if_it_were_alone() -> None:
    classes = clouds(1.0)[1]
    spreads = [clouds(spread)[0] for spread in (0.3, 1.0, 3.0)]  # of other length: they stop one after the other
    problems = [SoftmaxProblem(points / points.std(), classes, 3, 1e-6) for points in spreads]
    alone = [fit_adagrad([problem], np.random.default_rng(2))[0] for problem in problems]
    together = fit_adagrad(problems, np.random.default_rng(2))
    assert len({fit.loss for fit in alone}) == 3
    for one, other in zip(together, alone, strict=True):
        assert one.converged
        assert one.loss == pytest.approx(other.loss, abs=1e-6)
        assert one.weights == pytest.approx(other.weights, abs=1e-4)
