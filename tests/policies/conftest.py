from tests.calibration.fixtures import loaded, measured  # noqa: F401
