package headscale

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// litestreamPage is what Litestream v0.5.10 serves, shortened to what is read and what looks like it.
const litestreamPage = `# HELP litestream_txid The current transaction ID
# TYPE litestream_txid gauge
litestream_txid{db="/var/lib/head scale/db.sqlite"} 7
litestream_sync_count{db="/var/lib/head scale/db.sqlite"} 43
litestream_sync_error_count{db="/var/lib/head scale/db.sqlite"} 3
litestream_replica_operation_bytes{operation="PUT",replica_type="s3"} 8936
litestream_replica_operation_total{operation="DELETE",replica_type="s3"} 100
litestream_replica_operation_total{operation="PUT",replica_type="s3"} 6
process_start_time_seconds 1.795758513e+09
`

func TestBackupReading(t *testing.T) {
	g := NewWithT(t)
	reading, isOne := parseBackupReading([]byte(litestreamPage))
	g.Expect(isOne).To(BeTrue())
	g.Expect(reading).To(Equal(backupReading{process: 1.795758513e+09, transactions: 7, uploads: 6, looks: 40}))
	for _, page := range []string{"", "<html>", "litestream_sync_count", "process_start_time_seconds 1", "litestream_sync_count{} x", "litestream_sync_count{} NaN"} {
		_, isOne := parseBackupReading([]byte(page))
		g.Expect(isOne).To(BeFalse(), page)
	}
}

func FuzzBackupReading(f *testing.F) {
	f.Add(litestreamPage)
	f.Add("litestream_sync_count} 1\nlitestream_sync_count{ 2")
	f.Fuzz(func(t *testing.T, page string) {
		if _, isOne := parseBackupReading([]byte(page)); isOne && !strings.Contains(page, seriesLooks) {
			t.Errorf("%q was taken for Litestream's metrics", page)
		}
	})
}

// TestBackupTrack has what Litestream v0.5.10 told in each of these cases, as
// docs/decisions/2026-11-27-backup-health.md has it.
func TestBackupTrack(t *testing.T) {
	type step struct {
		second                       int
		process, changes, files, saw float64
		state                        backupState
	}
	for name, test := range map[string]struct {
		track   backupTrack
		steps   []step
		pending float64
	}{
		"a first start": {steps: []step{
			{0, 1, 0, 0, 0, backupBegins},
			{3, 1, 1, 4, 2, backupReplicates},
			{20, 1, 2, 5, 20, backupReplicates},
			{40, 1, 2, 6, 40, backupReplicates},
		}},
		"nothing to do": {steps: []step{{0, 1, 3, 3, 14, backupReplicates}, {20, 1, 3, 3, 34, backupReplicates}, {4000, 1, 3, 3, 4000, backupReplicates}}},
		"a storage that is away when something is written": {steps: []step{
			{0, 1, 3, 3, 35, backupReplicates},
			{20, 1, 5, 3, 55, backupReplicates},
			{25, 1, 5, 3, 60, backupReplicates},
			{29, 1, 5, 3, 64, backupReplicates},
			{30, 1, 5, 3, 65, backupBehind},
			{600, 1, 9, 3, 600, backupBehind},
		}, pending: 6},
		"one that is written to every five minutes": {track: backupTrack{syncInterval: 5 * time.Minute}, steps: []step{
			{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 5, 3, 55, backupReplicates}, {290, 1, 9, 3, 325, backupReplicates},
			{300, 1, 9, 9, 335, backupReplicates}, {320, 1, 10, 9, 355, backupReplicates}, {630, 1, 10, 9, 665, backupBehind},
		}, pending: 1},
		"and that is back": {steps: []step{
			{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 5, 3, 55, backupReplicates}, {60, 1, 5, 3, 95, backupBehind},
			{65, 1, 5, 4, 100, backupBehind}, {70, 1, 5, 5, 105, backupReplicates},
		}},
		"a storage that is away when Litestream starts": {steps: []step{
			{0, 2, 0, 0, 0, backupBegins}, {59, 2, 0, 0, 0, backupBegins}, {60, 2, 0, 0, 0, backupBehind}, {80, 2, 0, 0, 0, backupBehind},
			{85, 2, 7, 0, 1, backupBehind}, {90, 2, 7, 5, 6, backupReplicates}, {95, 2, 7, 6, 11, backupReplicates},
		}},
		"a start of Litestream while it was behind": {steps: []step{
			{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 5, 3, 55, backupReplicates}, {60, 1, 5, 3, 95, backupBehind},
			{65, 2, 0, 0, 0, backupBehind}, {90, 2, 7, 5, 6, backupReplicates},
		}},
		"a large change that takes its time": {steps: []step{{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 4, 3, 55, backupReplicates}, {45, 1, 4, 4, 80, backupReplicates}}},
		"changes all the time": {steps: []step{
			{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 23, 21, 55, backupReplicates}, {40, 1, 43, 41, 75, backupReplicates}, {60, 1, 63, 61, 95, backupReplicates},
		}, pending: 2},
		"a database that cannot be read": {steps: []step{
			{0, 1, 3, 3, 35, backupReplicates}, {20, 1, 3, 3, 35, backupReplicates}, {40, 1, 3, 3, 35, backupBlind}, {60, 1, 3, 3, 36, backupReplicates},
		}},
		"an operator that starts while it is behind": {track: doubt(time.Unix(0, 0)), steps: []step{
			{0, 1, 5, 3, 95, backupBehind}, {20, 1, 5, 3, 115, backupBehind}, {40, 1, 5, 5, 135, backupReplicates},
		}},
		"an operator that starts after Litestream did": {track: doubt(time.Unix(0, 0)), steps: []step{{0, 2, 0, 0, 0, backupBehind}, {20, 2, 5, 3, 9, backupReplicates}}},
		"a count that starts anew":                     {steps: []step{{0, 1, 9, 9, 35, backupReplicates}, {20, 1, 3, 10, 55, backupReplicates}, {40, 1, 4, 11, 75, backupReplicates}}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			track := test.track
			for _, s := range test.steps {
				at := time.Unix(int64(s.second), 0)
				track.read(backupReading{at: at, process: s.process, transactions: s.changes, uploads: s.files, looks: s.saw})
				g.Expect(track.state).To(Equal(s.state), fmt.Sprintf("after %d s", s.second))
			}
			g.Expect(track.pending()).To(Equal(test.pending))
		})
	}
}

func TestBackupTrackOfSilence(t *testing.T) {
	g := NewWithT(t)
	at := func(second int64) time.Time { return time.Unix(second, 0) }
	track := backupTrack{}
	track.read(backupReading{at: at(0), process: 1, transactions: 3, uploads: 3, looks: 9})
	g.Expect(track.settled()).To(BeTrue())
	track.miss(at(20))
	g.Expect(track.settled()).To(BeFalse())
	g.Expect(track.state).To(Equal(backupReplicates))
	track.miss(at(80))
	g.Expect(track.state).To(Equal(backupUnreachable))
	g.Expect(track.lastSync).To(Equal(at(0)), "what was not seen did not happen")
	track.read(backupReading{at: at(90), process: 1, transactions: 3, uploads: 3, looks: 99})
	g.Expect(track.state).To(Equal(backupReplicates))
	g.Expect(track.lastSync).To(Equal(at(90)))
}
