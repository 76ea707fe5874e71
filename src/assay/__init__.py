"""The downstream side: scores images with a registered model. Knows MLflow and image files, nothing
of the graph.
"""
