"""All folds of a recipe, and several recipes side by side: run folders, the ladder, blends, statistics."""
