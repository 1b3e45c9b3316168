"""The hospital story: Keyfob's main job, played on real parts and checked step by step."""
