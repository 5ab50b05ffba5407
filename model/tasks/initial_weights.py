"""The initial weights of a model for a task: an encoder from disk, and a new classifier."""

from torch import nn

from model.hub.pretrained import Pretrained
from model.hub.weights import from_hugging_face, load_weights, name_table
from model.tasks.heads import TaskModel


def load_encoder(model: TaskModel, pretrained: Pretrained, seed: int, random_weights: bool = False) -> list[str]:
    """Put a pretrained encoder, and its head if there is one, into a model for a task; draw the rest from the seed.

    Args:
        random_weights: draw all weights.

    Returns:
        The names of what was drawn.
    """
    if random_weights:
        model.encoder.initialize_weights(model, seed)
        return ["all"]
    state = from_hugging_face(pretrained.weights, model.config, None)
    new = ["classifier"] if hasattr(model, "classifier") else []
    table = name_table(model.config, model.form)
    names = {ours: theirs[0] for ours, theirs in table.items() if ours.startswith("head.")}
    if set(names.values()) <= set(pretrained.weights):
        state |= {ours: pretrained.weights[theirs] for ours, theirs in names.items()}
    else:
        new.append("head")
    drawn = nn.ModuleDict({name: model.get_submodule(name) for name in new})
    model.encoder.initialize_weights(drawn, seed)
    load_weights(model, drawn.state_dict() | state, str(pretrained.path))
    return new
