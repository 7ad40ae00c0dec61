"""The offline side: learns two towers from interactions and publishes a bundle."""
