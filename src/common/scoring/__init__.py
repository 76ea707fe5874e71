"""What a registered model carries: this folder ships inside it as it is, so it imports nothing of
the rest.
"""
