"""From a media file to sequences: faces, voice, speech and words, with their times (extra `clip`)."""
