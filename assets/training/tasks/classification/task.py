"""Classification as a task of the training program."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.settings import TrainingSettings
from assets.training.model_size import ModelSize
from assets.training.plan import TrainingPlan
from assets.training.task import Batch, Reader

if TYPE_CHECKING:
    import pyarrow as pa

    from assets.training.program.batches import Integers
    from assets.training.tasks.classification.data import TrainingData
    from assets.training.tasks.classification.model import TextClassifier
    from assets.training.tasks.classification.objective import CrossEntropy
    from assets.training.tasks.classification.predictor import TextPredictor

__all__ = ["Classification"]


class Classification:
    """One label per row: a `TextClassifier`, trained with cross-entropy, calibrated on the rows held back."""

    name = "classification"
    files = ("config.json", "preprocessing.json", "tokenizer.json")

    def size(self, plan: TrainingPlan) -> ModelSize:
        from assets.training.tasks.classification.size import measure_model

        return measure_model(plan.base_model, len(plan.features), len(plan.labels), plan.settings)

    def data(self, plan: TrainingPlan) -> "TrainingData":
        from assets.training.tasks.classification.data import load_training_data

        return load_training_data(plan)

    def chunks(self, plan: TrainingPlan) -> "Iterator[pa.Table]":
        from assets.training.tasks.classification.encoding import chunks

        return chunks(plan)

    def fit_encoder(self, plan: TrainingPlan, folder: Path) -> None:
        from assets.training.tasks.classification.encoding import fit_encoder

        fit_encoder(plan).save(folder)

    def encoder(self, folder: Path) -> "Callable[[pa.Table, Path], None]":
        from assets.training.tasks.classification.encoding import load_encoder

        return load_encoder(folder).write

    def model(self, plan: TrainingPlan, data: "TrainingData", read: Reader | None) -> "TextClassifier":
        from assets.training.tasks.classification.model import freeze, new_classifier
        from assets.training.tasks.classification.tuning import tune

        settings = plan.settings
        classifier = new_classifier(
            plan.base_model, data.preprocessing, data.word_weights, settings.model.word_share, read
        )
        freeze(classifier, settings.model.trainable_layers, settings.model.train_embeddings)
        tune(classifier, settings)
        return classifier

    def groups(self, model: "TextClassifier", settings: TrainingSettings) -> list[dict[str, Any]]:
        from assets.training.tasks.classification.groups import parameter_groups

        return parameter_groups(model, settings)

    def objective(self, data: "TrainingData") -> "CrossEntropy":
        from assets.training.tasks.classification.objective import CrossEntropy

        return CrossEntropy(data.class_weights)

    def batch(self, model: "TextClassifier", data: "TrainingData", rows: "Integers") -> Batch:
        return data.batch(rows, model.padding)

    def save(self, folder: Path, model: "TextClassifier", data: "TrainingData", findings: dict[str, float]) -> None:
        model.config.calibration_temperature = findings.get("temperature", 1.0)
        model.config.save(folder)
        data.tokenizer.save(str(folder / "tokenizer.json"))
        data.preprocessing.save(folder / "preprocessing.json")

    def load(self, folder: Path) -> "TextPredictor":
        from assets.training.tasks.classification.predictor import load_predictor

        return load_predictor(folder)
