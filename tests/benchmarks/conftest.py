from tests.trainer.conftest import single_thread, world, world_data

__all__ = ["single_thread", "world", "world_data"]  # fixtures of the trainer's tests
