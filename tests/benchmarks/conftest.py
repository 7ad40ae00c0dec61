from tests.trainer.conftest import one_thread, world, world_data

__all__ = ["one_thread", "world", "world_data"]  # fixtures of the trainer's tests
