"""The downstream side: scores, validates and adapts a registered model on images of its own. It
uses the rooms of src/common, reads nothing that the graph wrote and imports no stage.
"""
