"""Where values are read: one module a provider behind one port."""
