package plugin

import (
	"bytes"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"infrado.cloud/headscale-operator/internal/headscale"
)

// nodesShown are nodes in all states that are shown differently.
func nodesShown() []*nodeReport {
	ago := func(d time.Duration) *time.Time {
		then := now.Add(-d)
		return &then
	}
	var reports []*nodeReport
	for _, node := range []headscale.Node{
		{
			ID: 1, Name: "laptop.local", GivenName: "laptop", UserID: 7, UserName: "alice", Addresses: []string{"100.64.0.1", "fd7a:115c:a1e0::1"},
			Online: true, LastSeen: ago(time.Minute), Expiry: ago(-179 * day), CreatedAt: ago(day), PreAuthKeyID: 5,
		},
		{
			ID: 2, Name: "router", GivenName: "router", UserID: headscale.TaggedDevicesID, UserName: "tagged-devices", Tags: []string{"tag:db", "tag:router"},
			Addresses: []string{"100.64.0.2"}, LastSeen: ago(3 * time.Hour), CreatedAt: ago(9 * day),
			AvailableRoutes: []string{"10.1.0.0/24", "10.2.0.0/24", "0.0.0.0/0", "::/0"}, ApprovedRoutes: []string{"10.1.0.0/24", "10.9.0.0/16"},
		},
		{ID: 3, Name: "bad\x1b[2Jhost\n–", GivenName: "phone", UserID: 8, UserName: "bob\x9b2J", Expiry: ago(2 * time.Hour), Addresses: []string{"100.64.0.3"}},
		{ID: 4},
	} {
		reports = append(reports, describeNode(headscaleNamed("headscale"), &node, now))
	}
	return reports
}

func TestGoldenNodes(t *testing.T) {
	for name, s := range map[string]screen{"nodes": pipe, "nodes-posix": inPOSIX, "nodes-coloured": coloured} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s.showNodes(&out, nodesShown(), false, now)
			for _, node := range nodesShown() {
				out.WriteString("\n")
				s.showNode(&out, node, now)
			}
			golden(t, name, out.String())
		})
	}
	t.Run("nodes-wide", func(t *testing.T) {
		var out bytes.Buffer
		pipe.showNodes(&out, nodesShown(), true, now)
		golden(t, "nodes-wide", out.String())
	})
	for _, format := range formats {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			o := output(format)
			NewWithT(t).Expect(o.write(&out, list[*nodeReport]{Items: nodesShown()})).To(Succeed())
			golden(t, "nodes-"+format, out.String())
		})
	}
}

func TestFindNode(t *testing.T) {
	hs := headscaleNamed("headscale")
	nodes := append(nodesShown(), describeNode(hs, &headscale.Node{ID: 5, GivenName: "1", Name: "router", Addresses: []string{"100.64.0.5"}}, now))
	for argument, want := range map[string]uint64{"laptop": 1, "laptop.local": 1, "2": 2, "router": 2, "100.64.0.3": 3, "fd7a:115c:a1e0:0::1": 1, "100.64.0.5": 5, "absent": 0, "9": 0, "100.64.0.9": 0} {
		t.Run(argument, func(t *testing.T) {
			g := NewWithT(t)
			node, err := findNode(hs, nodes, argument)
			if want == 0 {
				g.Expect(err).To(MatchError(HavePrefix("there is no node \"" + argument + "\" in Headscale default/headscale; ")))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(node).To(HaveField("ID", want))
		})
	}
	_, err := findNode(hs, nodes, "1")
	NewWithT(t).Expect(err).To(MatchError(`"1" is more than one node, so name the address of one: laptop (id 1, user alice, 100.64.0.1, online), 1 (id 5, 100.64.0.5)`))
}

func TestPlanRoutes(t *testing.T) {
	g := NewWithT(t)
	node := nodesShown()[1]
	g.Expect(planRoutes(node, nil).question).To(Equal("Approve 10.2.0.0/24, 0.0.0.0/0, ::/0 for node router (id 2, tag:db, tag:router, 100.64.0.2)?"))
	g.Expect(planRoutes(node, []string{"10.1.0.0/24", "10.2.0.0/24"}).done).To(Equal("Approved 10.2.0.0/24 for node router (id 2, tag:db, tag:router, 100.64.0.2)."))
	g.Expect(planRoutes(node, []string{"10.3.0.0/24"}).question).To(HaveSuffix("The node does not announce 10.3.0.0/24 now."))
	for _, routes := range [][]string{{"10.1.0.0/24"}, {"10.1.0.0/24", "10.9.0.0/16"}} {
		nothing := planRoutes(node, routes)
		g.Expect(nothing.do).To(BeNil())
		g.Expect(nothing.done).To(MatchRegexp(`^Nothing to do: node router \(.*\) has .* approved already\.$`))
	}
	nothing := planRoutes(nodesShown()[0], nil)
	g.Expect(nothing.do).To(BeNil())
	g.Expect(nothing.done).To(HavePrefix("Nothing to do: no route of node laptop (id 1"))
	expired := planExpiry(nodesShown()[2], nil)
	g.Expect(expired.do).To(BeNil())
	g.Expect(expired.done).To(HavePrefix("Nothing to do: node phone (id 3, user bob"))
}
