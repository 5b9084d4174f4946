"""A trained policy that answers requests: one class, packaged for MLflow or served on its own."""
