package headscale

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// backupReading is what Litestream tells of itself at one time.
type backupReading struct {
	at time.Time
	// process is when Litestream was started, which tells one run from another.
	process float64
	// transactions is how many changes of the database it has seen, with those of earlier runs,
	// and uploads how many files it has written to the replica in this run: one for each change,
	// and others that join them.
	transactions, uploads float64
	// looks is how often it has looked for changes in this run: once a second.
	looks float64
}

// Series of Litestream's metrics.
const (
	seriesProcess      = "process_start_time_seconds"
	seriesTransactions = "litestream_txid"
	seriesUploads      = "litestream_replica_operation_total"
	seriesLooks        = "litestream_sync_count"
	seriesFailedLooks  = "litestream_sync_error_count"
	labelUpload        = `operation="PUT"`
)

// parseBackupReading reads Litestream's metrics. It reports false where they are not Litestream's.
func parseBackupReading(page []byte) (backupReading, bool) {
	var reading backupReading
	found := false
	for line := range bytes.Lines(page) {
		// A label may have spaces, and a value is followed by a time at most.
		series, text, labelled := strings.Cut(string(line), "} ")
		if !labelled {
			series, text, _ = strings.Cut(string(line), " ")
		}
		name, labels, _ := strings.Cut(series, "{")
		text, _, _ = strings.Cut(strings.TrimSpace(text), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
			continue
		}
		switch name {
		case seriesProcess:
			reading.process = value
		case seriesTransactions:
			reading.transactions += value
		case seriesLooks:
			found = true
			reading.looks += value
		case seriesFailedLooks:
			reading.looks -= value
		case seriesUploads:
			if strings.Contains(labels, labelUpload) {
				reading.uploads += value
			}
		}
	}
	return reading, found
}

// backupState is how the replication of a database is.
type backupState string

// The states of a replication.
const (
	// backupUnknown is that of a Litestream that has not been asked yet.
	backupUnknown backupState = ""
	// backupUnreachable is that of a Litestream that does not answer.
	backupUnreachable backupState = "unreachable"
	// backupBegins is that of a Litestream that has written nothing since it was started.
	backupBegins backupState = "begins"
	// backupReplicates is that of a Litestream that writes every change.
	backupReplicates backupState = "replicates"
	// backupBehind is that of a Litestream whose changes do not reach the replica.
	backupBehind backupState = "behind"
	// backupBlind is that of a Litestream that does not look for changes any more.
	backupBlind backupState = "blind"
)

// Times by which a replication is judged. Together with backupInterval and backupRecheck a
// storage that is away is reported within a minute of the next change.
const (
	// behindLimit is how long a change may take to the replica before the replication has failed, besides
	// the sync interval. Litestream usually needs two seconds, and some hundred milliseconds for each further file.
	behindLimit = 30 * time.Second
	// beginLimit is the same for the first file after a start, which has the whole database.
	beginLimit = time.Minute
	// unreachableLimit is how long Litestream may leave requests unanswered.
	unreachableLimit = time.Minute
)

// backupTrack is what follows from the readings of one Litestream. Litestream says neither what
// the replica has nor why a write failed: it counts its changes and what it has written. Of each
// change it writes a file, and from time to time one that joins others, so the number of files
// less that of changes never falls while all is well.
type backupTrack struct {
	// syncInterval is how long Litestream waits between two files.
	syncInterval time.Duration
	last         backupReading
	// balance is the most that uploads was ahead of transactions.
	balance float64
	// since is when the present state of affairs was first seen: that nothing is written, or read.
	since time.Time
	state backupState
	// lastSync is when every change was last known to be written, or some of them were.
	lastSync time.Time
	// complete is when every change was last known to be written.
	complete time.Time
	// failed is when it was first seen that changes are not written, the last time, and recovered
	// when that ended; zero: not by this operator.
	failed, recovered time.Time
	// silent is since when Litestream does not answer.
	silent time.Time
}

// doubt is a track of a Litestream that was known to be behind, by an operator before this one.
func doubt(since time.Time) backupTrack {
	return backupTrack{state: backupBehind, complete: since}
}

// trouble is since when changes do not reach the storage, or zero.
func (t *backupTrack) trouble() time.Time {
	if t.state != backupBehind {
		return time.Time{}
	}
	return t.failed
}

// read takes over what Litestream has told.
func (t *backupTrack) read(r backupReading) {
	t.silent = time.Time{}
	t.begin(r)
	balance := r.uploads - r.transactions
	wrote, looked := r.uploads > t.last.uploads, r.looks > t.last.looks
	t.last = r
	if wrote {
		t.since, t.lastSync = r.at, r.at
	}
	if r.uploads > 0 && looked && balance >= t.balance {
		if t.state == backupBehind {
			t.recovered = r.at
		}
		t.balance, t.since, t.lastSync, t.complete, t.state = balance, r.at, r.at, r.at, backupReplicates
		return
	}
	t.judge(r, balance < t.balance)
}

// begin begins anew where there is nothing to compare a reading with: it is the first one, or the
// first one of another run, or Litestream had not looked at the database before.
func (t *backupTrack) begin(r backupReading) {
	first, other := t.last.at.IsZero(), t.last.process != r.process
	if !first && !other && t.last.transactions > 0 && t.last.transactions <= r.transactions {
		return
	}
	t.balance = r.uploads - r.transactions
	switch {
	case first && t.state == backupBehind && r.uploads > 0:
		// What was missing then still is, until something is written.
		t.balance++
		t.last, t.since = r, r.at.Add(-behindLimit-t.syncInterval)
	case first || other:
		t.last, t.since = backupReading{}, r.at
	}
}

// judge decides whether what is not complete has lasted for too long.
func (t *backupTrack) judge(r backupReading, missing bool) {
	lasted := r.at.Sub(t.since)
	switch {
	case r.uploads == 0 && lasted >= beginLimit, r.uploads > 0 && missing && lasted >= behindLimit+t.syncInterval:
		if t.state != backupBehind {
			t.failed = r.at
		}
		t.state = backupBehind
	case r.uploads == 0 && t.state != backupBehind:
		t.state = backupBegins
	case r.uploads > 0 && !missing && lasted >= behindLimit:
		t.state = backupBlind
	}
}

// miss notes that Litestream did not answer.
func (t *backupTrack) miss(at time.Time) {
	if t.silent.IsZero() {
		t.silent = at
	}
	if at.Sub(t.silent) >= unreachableLimit {
		t.state = backupUnreachable
	}
}

// pending is how many changes are known not to be written.
func (t *backupTrack) pending() float64 {
	return max(t.balance-(t.last.uploads-t.last.transactions), 0)
}

// settled reports whether there is nothing that another look would soon decide.
func (t *backupTrack) settled() bool {
	return t.state == backupUnreachable || t.silent.IsZero() && t.state == backupReplicates && t.complete.Equal(t.last.at)
}
