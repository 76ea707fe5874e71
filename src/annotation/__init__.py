"""`unstained annotate`: a local page on which somebody says what windows hold, the uncertain ones
first.
"""
