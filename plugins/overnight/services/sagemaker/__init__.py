"""SageMaker batch transform."""
