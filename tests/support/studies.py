"""A small study of the planted world, which runs within seconds."""

from benchmarks.compare.__main__ import main
from tests.support.tiny_dataset import write_tiny_world

HEAD = """
seeds = 2
temperatures = [0.1]
budget = 32
budgets = [8, 32]
[run.towers]
embedding_dim = 16
history_length = 8
[run.training]
device = "cpu"
batch_size = 64
epochs = 1
learning_rate = 0.003
"""
DATASET = '[datasets.planted]\nfolder = "world"\n'
IN_BATCH = """
[methods.in-batch]
kind = "fixed list"
training.sampler = { name = "in-batch" }
"""
UNIFORM = """
[methods.uniform]
kind = "fixed list"
training.sampler = { name = "uniform" }
budget_shares = { count = 1.0 }
"""
TINY = HEAD + DATASET + IN_BATCH + UNIFORM


def write_study(folder, text=TINY):
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_world(folder, users=210):
    """Write the planted world with enough cases for metrics."""
    write_tiny_world(folder / "world", users=users, items=160)


def compare(folder, *options):
    """Run the command with the world beside the study file; return the exit status."""
    arguments = ["run", "--study", str(folder / "study.toml"), "--data", str(folder)]
    return main([*arguments, "--out", str(folder / "out"), *options])
