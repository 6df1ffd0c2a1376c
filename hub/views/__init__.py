"""What tells: each view folds the feed's facts into something a person or a program reads."""
