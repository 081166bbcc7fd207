package dial

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func TestCheckAddr(t *testing.T) {
	for addr, want := range map[string]string{ // "": allowed
		"10.1.2.3": "", "192.168.0.7": "", "172.16.0.1": "", "8.8.8.8": "", "2001:db8::1": "", "fd00::1": "", "100.64.0.1": "",
		"127.0.0.1": "loopback", "127.8.8.8": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "::": "unspecified", "::ffff:0.0.0.0": "unspecified",
		"169.254.169.254": "metadata", "::ffff:169.254.169.254": "metadata", "fd00:ec2::254": "metadata",
		"100.100.100.200": "metadata", "fd20:ce::254": "metadata",
		"169.254.1.1": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "::ffff:a9fe:101": "link-local",
		"224.0.0.1": "multicast", "ff02::1": "multicast", "255.255.255.255": "broadcast",
		"::7f00:1": "another form", "64:ff9b::a9fe:a9fe": "another form", "2002:a9fe:a9fe::1": "another form",
		"64:ff9b:1::1": "another form",
	} {
		err := CheckAddr(netip.MustParseAddr(addr), false)
		if want == "" && err != nil {
			t.Errorf("%s: %v", addr, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want an error that says %s", addr, err, want)
		}
		allowed := CheckAddr(netip.MustParseAddr(addr), true)
		if (allowed == nil) != (want == "" || want == "loopback") {
			t.Errorf("%s with loopback allowed: %v", addr, allowed)
		}
	}
	if CheckAddr(netip.Addr{}, true) == nil {
		t.Error("no address is allowed")
	}
}

func TestGuardLooksAfterResolution(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]"} {
		for _, allowed := range []bool{false, true} {
			tr := NewTransport(Config{AllowLoopback: allowed})
			r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+host+":"+port, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(r)
			if err == nil {
				_ = resp.Body.Close()
			}
			_, refused := errors.AsType[*ForbiddenError](err)
			if refused == allowed || (allowed && err != nil) {
				t.Errorf("%s, loopback allowed %t: got %v", host, allowed, err)
			}
			if refused && (!NothingSent(err) || NobodyListens(err)) {
				t.Errorf("%s: nothing was sent, but that nobody listens is not known", host)
			}
			tr.Close()
		}
	}
}
