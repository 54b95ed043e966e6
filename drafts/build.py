import json, re, sys
src, out, title = sys.argv[1:4]
cells=[]
for part in re.split(r"^--- ", open(src).read(), flags=re.M)[1:]:
    head, body = part.split("\n",1)
    kind, name = head.split()[:2]
    meta = {"tags":["parameters"]} if name=="parameters" else {}
    body = body.rstrip("\n")
    lines = body.split("\n"); source=[l+"\n" for l in lines[:-1]]+[lines[-1]]
    c={"cell_type":kind,"id":name,"metadata":meta}
    if kind=="code": c={"cell_type":"code","execution_count":None,"id":name,"metadata":meta,"outputs":[]}
    c["source"]=source; cells.append(c)
nb={"cells":cells,"metadata":{"devil":{"reads_data":True,"title":title},"kernelspec":{"display_name":"Python 3","language":"python","name":"python3"},"language_info":{"name":"python"}},"nbformat":4,"nbformat_minor":5}
json.dump(nb,open(out,"w"),indent=1,ensure_ascii=False); open(out,"a").write("\n")
