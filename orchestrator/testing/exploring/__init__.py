"""How `explore` works: a model of everything around a saga, rules, and a search through all that may happen."""
