"""What the tests of the study share: a plan of seconds on the planted world."""

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


def write_plan(folder, text=TINY):
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_world(folder, users=210):
    """As the planted world is by default, with cases enough for figures."""
    write_tiny_world(folder / "world", users=users, items=160)


def compare(folder, *more):
    """Give the command; its exit status. The world is sought beside the plan."""
    words = ["run", "--plan", str(folder / "plan.toml"), "--data", str(folder)]
    return main([*words, "--out", str(folder / "out"), *more])
