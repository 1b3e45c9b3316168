"""The eleven steps, in four acts: each is a coroutine that fails unless it was seen to hold."""
