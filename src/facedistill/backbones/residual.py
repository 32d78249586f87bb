"""The student of residual distillation: a network, and an assistant that learns what the network lacks.

RIM (arXiv 1905.10777): both are of one kind, and the embedding is the sum of theirs. So the pair costs twice as much as
one network; a single network of that cost is the fair comparison.
"""

from torch import Tensor

from facedistill.backbones.base import Backbone


class Residual(Backbone):
    """Student and assistant side by side: embedding and stage maps are the sums of theirs.

    Args:
        student, assistant: networks of one kind, made by `create_backbone`.
    """

    part_names = ("student", "assistant")

    def __init__(self, student: Backbone, assistant: Backbone) -> None:
        super().__init__(student.embedding_dim, student.input_size)
        self.student, self.assistant = student, assistant

    def parts(self, x: Tensor) -> dict[str, tuple[Tensor, tuple[Tensor, ...]]]:
        return {"student": self.student.with_features(x), "assistant": self.assistant.with_features(x)}

    def with_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        (s, s_maps), (a, a_maps) = self.parts(x).values()
        return s + a, tuple(own + other for own, other in zip(s_maps, a_maps, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.student(x) + self.assistant(x)
