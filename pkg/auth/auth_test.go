package auth

import (
	"context"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestKeysSurviveTheFileAndOnlyHashesAreStored(t *testing.T) {
	secret, plain, err := Mint("p1", Secret)
	if err != nil {
		t.Fatal(err)
	}
	public, _, err := Mint("p2", Publishable)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys.yaml")
	if err := WriteKeys(path, []Key{public, secret}); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.Authenticate(plain); err != nil || got.ProjectID != "p1" || got.Kind != Secret {
		t.Errorf("Authenticate = %+v, %v", got, err)
	}
	for _, bad := range []string{"", plain[:len(plain)-1], plain + "0", secret.SHA256} {
		if _, err := keys.Authenticate(bad); err == nil {
			t.Errorf("Authenticate(%q) succeeded", bad)
		}
	}
}

func TestInterceptorGivesEachKindItsRights(t *testing.T) {
	secret, secretPlain, _ := Mint("p1", Secret)
	public, publicPlain, _ := Mint("p1", Publishable)
	keys, err := NewKeys([]Key{secret, public})
	if err != nil {
		t.Fatal(err)
	}
	const send, recall = "/hone.collector.v1.CollectorService/SendEvents", "/hone.recall.v1.RecallService/Recall"
	tests := []struct {
		name, header, method string
		want                 codes.Code
	}{
		{"secret reads", "Bearer " + secretPlain, recall, codes.OK},
		{"secret writes", "bearer " + secretPlain, send, codes.OK},
		{"publishable writes", "Bearer " + publicPlain, send, codes.OK},
		{"publishable reads", "Bearer " + publicPlain, recall, codes.PermissionDenied},
		{"none", "", send, codes.Unauthenticated},
		{"basic", "Basic " + secretPlain, send, codes.Unauthenticated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("authorization", tt.header))
			_, err := keys.UnaryInterceptor()(ctx, nil, &grpc.UnaryServerInfo{FullMethod: tt.method},
				func(ctx context.Context, _ any) (any, error) {
					if p, err := Project(ctx); err != nil || p != "p1" {
						t.Errorf("Project = %q, %v", p, err)
					}
					return nil, nil
				})
			if status.Code(err) != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestOriginsAreMatchedWhole(t *testing.T) {
	listed := Key{Kind: Publishable, Origins: []string{"https://shop.example"}}
	every := Key{Kind: Publishable, Origins: []string{"*"}}
	for origin, want := range map[string]bool{
		"https://shop.example":      true,
		"https://shop.example.evil": false,
		"http://shop.example":       false,
		"https://shop.example:8443": false,
		"null":                      false,
	} {
		if got := listed.AllowsOrigin(origin); got != want {
			t.Errorf("AllowsOrigin(%q) = %v, want %v", origin, got, want)
		}
		if !every.AllowsOrigin(origin) {
			t.Errorf("* does not allow %q", origin)
		}
		if (Key{Kind: Publishable}).AllowsOrigin(origin) {
			t.Errorf("a key without origins allows %q", origin)
		}
	}
}
