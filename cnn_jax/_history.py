"""The metrics of a training run: read late from the device, and joined to its history."""

from collections.abc import Mapping

import jax
import numpy as np

from ._metrics import Metrics
from .progress import Progress

History = dict[str, np.ndarray]
"""Metrics by name: one value per step, or, where the name begins with "validation_", one value per validation."""

VALIDATION = "validation_"  # begins the names of metrics on validation data, and of their steps
# Metrics stay on the device and are read after this number of steps.
STEPS_PER_REPORT = 50
# Calls dispatched at once: enough to keep the device busy while Python runs, few enough to stop soon when asked to.
CALLS_IN_FLIGHT = 2


class MetricsReader:
    """Collects the metrics of dispatched steps, and reads them late, so that the device need not wait for Python.

    Args:
      bar: shows the newest metrics that were read.
      step: steps done by an earlier part of the run.
      history: metrics of that part.
      allow_nonfinite: whether a loss that is not finite is no error.
    """

    def __init__(
        self,
        bar: Progress,
        step: int = 0,
        history: Mapping[str, np.ndarray] | None = None,
        *,
        allow_nonfinite: bool = False,
    ):
        self.step = step
        """Steps dispatched."""
        self._bar = bar
        self._steps_read = step
        past = history or {}
        training = {name: values for name, values in past.items() if not name.startswith(VALIDATION)}
        self._rows = [training] if training else []
        self._validation: dict[str, list[np.number]] = {
            name: list(values) for name, values in past.items() if name.startswith(VALIDATION)
        }
        self._pending: list[tuple[int, Metrics]] = []
        self._allow_nonfinite = allow_nonfinite

    def add(self, steps: int, metrics: Metrics) -> None:
        """Takes the metrics of a call that runs `steps` steps."""
        self._pending.append((steps, metrics))
        # All but the newest metrics are read, so that the device has work meanwhile. The first are read at once, to
        # show that training has begun; those of slow steps are read when the user awaits them.
        if not self._rows or self.step - self._steps_read >= STEPS_PER_REPORT or self._bar.is_due():
            self._read(max(len(self._pending) - 1, 1))
        elif len(self._pending) > CALLS_IN_FLIGHT:
            jax.block_until_ready(self._pending[-CALLS_IN_FLIGHT][1])
        self.step += steps

    def read_all(self) -> None:
        """Waits for the metrics of all dispatched steps. Raises a FloatingPointError for a loss that is not finite."""
        self._read(len(self._pending))

    def add_validation(self, metrics: Mapping[str, float]) -> bool:
        """Takes the metrics on the validation data after all dispatched steps. Returns whether the loss is the lowest.

        A loss that is NaN is never the lowest.
        """
        values = {"step": np.int32(self.step)} | {name: np.float32(value) for name, value in metrics.items()}
        for name, value in values.items():
            self._validation.setdefault(VALIDATION + name, []).append(value)
        self._report()
        *earlier, loss = self._validation[VALIDATION + "loss"]
        return bool(loss < min((value for value in earlier if not np.isnan(value)), default=np.inf))

    def latest(self) -> dict[str, float]:
        """The newest metrics that were read, and those of a validation after the same step."""
        metrics = {name: float(values[-1]) for name, values in self._rows[-1].items()}
        if self._validation and self._validation[VALIDATION + "step"][-1] == self._steps_read:
            metrics |= self._latest_validation()
        return metrics

    def history(self) -> History:
        """The metrics of all steps that were read, one value per step, and those of all validations."""
        if self._rows:
            names = self._rows[0]
            self._rows = [{name: np.concatenate([rows[name] for rows in self._rows]) for name in names}]
        training = self._rows[0] if self._rows else {}
        return dict(training) | {name: np.array(values) for name, values in self._validation.items()}

    def _latest_validation(self) -> dict[str, float]:
        return {name: float(values[-1]) for name, values in self._validation.items() if name != VALIDATION + "step"}

    def _read(self, calls: int) -> None:
        if not calls:
            return
        for steps, metrics in jax.device_get(self._pending[:calls]):
            rows = {name: values[:steps] for name, values in metrics.items()}
            self._rows.append(rows)
            if not self._allow_nonfinite:
                _check_losses(rows["loss"], self._steps_read + 1)
            self._steps_read += steps
        del self._pending[:calls]
        self._report()

    def _report(self) -> None:
        metrics = {name: values[-1] for name, values in self._rows[-1].items()} | self._latest_validation()
        self._bar.update(self._steps_read, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


def loss_to_compare(history: Mapping[str, np.ndarray], step: int, last_step: int) -> float:
    """The loss by which checkpoints are compared; infinite if it is unknown or not finite."""
    if "validation_step" in history:
        is_validated = len(history["validation_step"]) and history["validation_step"][-1] == step
        loss = history["validation_loss"][-1] if is_validated else np.inf
    else:
        loss = np.mean(history["loss"][last_step - step :])
    return float(loss) if np.isfinite(loss) else float(np.inf)


def _check_losses(losses: np.ndarray, first_step: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        step = first_step + bad[0]
        raise FloatingPointError(
            f"loss is {losses[bad[0]]} at step {step}; try a lower learning rate, or look for NaN in the data"
        )
