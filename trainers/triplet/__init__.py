"""The triplet network of Deep Lesion Graphs (CVPR 2018, arXiv 1711.10535): type, place and size in one vector.

May import: lesionary, trainers. Never etl, store or cli.
"""
