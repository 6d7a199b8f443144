"""The triplet network of the Deep Lesion Graphs paper (CVPR 2018, arXiv 1711.10535).

May import: lesionary, trainers. Never etl, store or cli.
"""
