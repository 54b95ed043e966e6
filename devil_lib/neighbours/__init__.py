"""The neighbours of a backdoored generator: stealing a GAN, triggers of classifiers, poisoned training sets.

Beside the main line and not needed by it. `poisoning` plants what `trigger_distribution` and `cleansing` look for in classifiers;
`extraction` steals a generator through the samples that it serves.
"""
