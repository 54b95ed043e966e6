"""Running the lessons: execution, checking, offline pages, the sweep over seeds. No lesson asks a learner to read it."""
