"""Unsupervised categories by looped deep mining: cluster, learn the clusters, cluster what was learnt, and again."""
