"""Providers of models: what each of them speaks, brought onto one set of events."""
