package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"infrado.cloud/headscale-operator/internal/kube/kubeapi"
)

// Plan is what has to be written for one owner. It is complete before the first write.
type Plan struct {
	clients Clients
	owner   client.Object
	// fieldManager is the field manager under which objects are applied.
	fieldManager string
	// exists is whether some object of the owner exists.
	exists bool
	// foreign names the objects that belong to someone else.
	foreign []string
	// steps are the objects to be written.
	steps []step
	// failures are why objects could not be read or written.
	failures []*failure
}

// failure is the reason why objects, by kind and name, could not be read or written.
type failure struct {
	objects []string
	err     error
	// waiting are the objects that are not written because of it.
	waiting []string
}

// error is the error, with the objects that wait.
func (f *failure) error() error {
	switch len(f.waiting) {
	case 0:
		return f.err
	case 1:
		return fmt.Errorf("%w (%s waits for it)", f.err, f.waiting[0])
	default:
		return fmt.Errorf("%w (%s wait for it)", f.err, strings.Join(f.waiting, ", "))
	}
}

// step is what is to be done about one object.
type step struct {
	object string
	// waitsFor are the objects without which this one is not written.
	waitsFor []string
	// check finds out whether the write would be refused.
	check func(context.Context) error
	// write applies the object.
	write func(context.Context) error
}

// NewPlan returns an empty plan for the objects of an owner, which is their controller.
func NewPlan(clients Clients, owner client.Object, fieldManager string) *Plan {
	if clients.Memory == nil {
		clients.Memory = &Memory{}
	}
	return &Plan{clients: clients, owner: owner, fieldManager: fieldManager}
}

// Empty reports whether nothing has to be written.
func (p *Plan) Empty() bool { return len(p.steps) == 0 }

// Execute executes the plan. An object that cannot be written does not block other objects, unless
// they wait for it; all errors are joined. In two cases it writes nothing: it returns a
// *ForeignError if a name is taken by someone else and no object exists yet, and an *OwnerGoneError
// if the owner is being deleted.
func (p *Plan) Execute(ctx context.Context) error {
	if len(p.foreign) > 0 {
		p.failures = append(p.failures, &failure{objects: p.foreign, err: &ForeignError{Owner: p.owner, Objects: p.foreign}})
	}
	if len(p.foreign) > 0 && !p.exists {
		return p.error()
	}
	if err := p.checkOwner(ctx); err != nil {
		return err
	}
	for _, s := range p.steps {
		if err := s.check(ctx); err != nil {
			p.fail(s.object, err)
		}
	}
	for _, s := range p.steps {
		p.applyStep(ctx, s)
	}
	return p.error()
}

// applyStep writes the object of a step, unless it failed before or waits for one that did.
func (p *Plan) applyStep(ctx context.Context, s step) {
	if p.failureOf(s.object) != nil {
		return
	}
	for _, other := range s.waitsFor {
		if failed := p.failureOf(other); failed != nil {
			failed.waiting = append(failed.waiting, s.object)
			return
		}
	}
	if err := s.write(ctx); err != nil {
		p.fail(s.object, err)
	}
}

// fail notes that an object could not be read or written.
func (p *Plan) fail(object string, err error) {
	p.failures = append(p.failures, &failure{objects: []string{object}, err: err})
}

// failureOf is the reason why an object is not written; nil if there is none.
func (p *Plan) failureOf(object string) *failure {
	for _, f := range p.failures {
		if slices.Contains(f.objects, object) || slices.Contains(f.waiting, object) {
			return f
		}
	}
	return nil
}

// error joins the errors of all failures; nil where there are none.
func (p *Plan) error() error {
	var all []error
	for _, f := range p.failures {
		all = append(all, f.error())
	}
	return errors.Join(all...)
}

// checkOwner checks whether the owner still exists before anything is written: its objects would
// otherwise be created again while they are being deleted with it.
func (p *Plan) checkOwner(ctx context.Context) error {
	if p.Empty() {
		return nil
	}
	live, err := kubeapi.NewLike(p.owner)
	if err != nil {
		return err
	}
	err = p.clients.Live.Get(ctx, client.ObjectKeyFromObject(p.owner), live)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("checking that the owner still exists: %w", err)
	case err != nil || live.GetUID() != p.owner.GetUID() || !live.GetDeletionTimestamp().IsZero():
		return &OwnerGoneError{Owner: p.owner}
	default:
		return nil
	}
}
