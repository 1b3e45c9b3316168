"""sync: knows which references every source holds, and tells what happened to them. It never reads a value."""
