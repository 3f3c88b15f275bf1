"""The network that a topology means, made by Linux: namespaces, links, NATs, captures."""
