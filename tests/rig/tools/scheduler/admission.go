package main

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	api "k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	_ "k8s.io/kubernetes/pkg/apis/scheduling/install"
	_ "k8s.io/kubernetes/pkg/apis/storage/install"
	podregistry "k8s.io/kubernetes/pkg/registry/core/pod"
)

var decoder = legacyscheme.Codecs.UniversalDeserializer()

// decode reads an object of a v1 API and fills in the API server's defaults.
func decode(raw json.RawMessage) (runtime.Object, error) {
	object, kind, err := decoder.Decode(raw, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, raw)
	}
	legacyscheme.Scheme.Default(object)
	switch object := object.(type) {
	case *v1.Pod:
		return admit(object)
	case *appsv1.DaemonSet:
		// The template's pods pass admission, not the set.
		return object, nil
	case *v1.Node:
		return object, nil
	}
	_ = kind
	return object, nil
}

// admit takes a pod through what the API server does at its creation. Its binding, status and times stay.
func admit(pod *v1.Pod) (*v1.Pod, error) {
	created := pod.DeepCopy()
	created.DeletionTimestamp = nil
	internal := &api.Pod{}
	if err := legacyscheme.Scheme.Convert(created, internal, nil); err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	// A gated pod is bound only after its gates are lifted.
	podregistry.Strategy.PrepareForCreate(context.Background(), internal)
	if errs := podregistry.Strategy.Validate(context.Background(), internal); len(errs) > 0 {
		return nil, fmt.Errorf("pod %s/%s would be refused: %w", pod.Namespace, pod.Name, errs.ToAggregate())
	}
	admitted := &v1.Pod{}
	if err := legacyscheme.Scheme.Convert(internal, admitted, nil); err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	admitted.Status = pod.Status
	admitted.DeletionTimestamp = pod.DeletionTimestamp
	if admitted.UID == "" {
		admitted.UID = types.UID(pod.Namespace + "/" + pod.Name)
	}
	return admitted, nil
}
