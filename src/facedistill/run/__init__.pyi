from .checkpoint import (
    begun as begun,
    epoch_file as epoch_file,
    latest_checkpoint as latest_checkpoint,
    restore_checkpoint as restore_checkpoint,
    save_checkpoint as save_checkpoint,
)
from .claim import Busy as Busy, claim_run as claim_run
from .log import LOG as LOG, VERIFICATION as VERIFICATION, Log as Log, read_log as read_log
from .memory import forget_peak as forget_peak, peak as peak
from .trackers import Trackers as Trackers
