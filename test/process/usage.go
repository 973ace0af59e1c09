package process

import (
	"errors"
	"time"

	"github.com/prometheus/procfs"
)

// Usage is what a process has used so far, and the memory that it has. Only Linux reports it.
type Usage struct {
	// Processor is how long it kept processors busy, in steps of 10 ms.
	Processor time.Duration
	// Proportional is its PSS in MiB: what it alone has in memory, and its share of what it has in
	// common with others. Resident is its RSS, and Peak the largest one, in MiB. All of them count
	// the pages of its program, too.
	Proportional, Resident, Peak float64
	// Files is how many files it has open.
	Files int
}

// Usage reads what the process, which must be running, has used.
func (p *Process) Usage() (Usage, error) {
	proc, err := procfs.NewProc(p.PID())
	if err != nil {
		return Usage{}, err
	}
	stat, statErr := proc.Stat()
	memory, memoryErr := proc.ProcSMapsRollup()
	status, statusErr := proc.NewStatus()
	files, filesErr := proc.FileDescriptorsLen()
	return Usage{
		Processor:    time.Duration(stat.CPUTime() * float64(time.Second)),
		Proportional: mebibytes(memory.Pss), Resident: mebibytes(memory.Rss), Peak: mebibytes(status.VmHWM),
		Files: files,
	}, errors.Join(statErr, memoryErr, statusErr, filesErr)
}

func mebibytes(bytes uint64) float64 { return float64(bytes) / (1 << 20) }
